"""What a parser accepts and no table can hold or should guess: keys that stand twice, halves of characters."""

import re
from typing import Any

_HALF = re.compile("[\ud800-\udfff]")
_WRITTEN_HALF = re.compile(r"\\u[dD][89a-fA-F]")


class RepeatedKey(dict[str, Any]):
    """An object in which a key has several values."""

    key = ""


class RecordFault(ValueError):
    """Stands in the place of a record that cannot be read; the message says why."""


class ObjectHook:
    """`object_pairs_hook` of one text: its objects, those that repeat a key with another value as `RepeatedKey`."""

    def __init__(self) -> None:
        self.repeated = False

    def __call__(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            key = next((key for key, value in pairs if value != found[key]), None)
            if key is not None:
                self.repeated = True
                found = RepeatedKey(found)
                found.key = key
        return found

    def suspects(self, content: str) -> bool:
        """Whether a parsed text may have a fault: halves of a character come from escapes alone."""
        return self.repeated or _WRITTEN_HALF.search(content) is not None


def find_fault(value: object) -> str | None:
    """The first fault within a value, with its field."""
    pending: list[tuple[str, object]] = [("", value)]
    while pending:
        place, part = pending.pop()
        if isinstance(part, str):
            if (half := _HALF.search(part)) is not None:
                return f"{place or 'the text'} holds {ascii(half[0])[1:-1]}, half of a character"
        elif isinstance(part, dict):
            fields = [(f"{place}.{key}" if place else str(key), key, inner) for key, inner in part.items()]
            if isinstance(part, RepeatedKey):
                name = f"{place}.{part.key}" if place else part.key
                return f"the key {_shown(name)} stands twice with different values"
            bad = next((name for name, key, _ in fields if _HALF.search(str(key))), None)
            if bad is not None:
                return f"the key {_shown(bad)} holds half of a character"
            pending += [(name, inner) for name, _, inner in reversed(fields)]
        elif isinstance(part, list):
            pending += [(f"{place}[{index}]", inner) for index, inner in reversed(list(enumerate(part)))]
    return None


def _shown(name: str) -> str:
    return name if name.isprintable() else ascii(name)[1:-1]
