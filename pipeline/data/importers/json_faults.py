"""JSON that a parser accepts but that is ambiguous or not valid text: repeated keys, unpaired surrogates."""

import re
from typing import Any

_HALF = re.compile("[\ud800-\udfff]")
_WRITTEN_HALF = re.compile(r"\\u[dD][89a-fA-F]")


class RepeatedKey(dict[str, Any]):
    """An object with a key that has several values."""

    key = ""


class RecordFault(ValueError):
    """Replaces a record that cannot be read; the message says why."""


class ObjectHook:
    """`object_pairs_hook` that returns objects with a repeated key and different values as `RepeatedKey`."""

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
        """Whether a parsed text may have a fault; unpaired surrogates only come from escapes."""
        return self.repeated or _WRITTEN_HALF.search(content) is not None


def find_fault(value: object) -> str | None:
    """The first fault in a value, with its field."""
    pending: list[tuple[str, object]] = [("", value)]
    while pending:
        place, part = pending.pop()
        if isinstance(part, str):
            if (half := _HALF.search(part)) is not None:
                return f"{place or 'the text'} has {ascii(half[0])[1:-1]}, half of a surrogate pair"
        elif isinstance(part, dict):
            fields = [(f"{place}.{key}" if place else str(key), key, inner) for key, inner in part.items()]
            if isinstance(part, RepeatedKey):
                name = f"{place}.{part.key}" if place else part.key
                return f"the key {_shown(name)} appears twice with different values"
            bad = next((name for name, key, _ in fields if _HALF.search(str(key))), None)
            if bad is not None:
                return f"the key {_shown(bad)} has half of a surrogate pair"
            pending += [(name, inner) for name, _, inner in reversed(fields)]
        elif isinstance(part, list):
            pending += [(f"{place}[{index}]", inner) for index, inner in reversed(list(enumerate(part)))]
    return None


def _shown(name: str) -> str:
    return name if name.isprintable() else ascii(name)[1:-1]
