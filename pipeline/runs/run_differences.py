"""What differs between a recorded run and the one that would continue it, value by value."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from ...plain_text import counted

CODE: Final = "code_sha256"
"""Key of the digest of a user's own decoding method (student/decoding/method_registry.py)."""
_KINDS: Final = ("name", "method")
"""Keys that say of what kind a record is; records of two kinds have different settings, which are not listed."""
_NOTHING: Final = object()


def differing_keys(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The keys whose values differ; one that is absent has the value `None`."""
    return [key for key in sorted({*recorded, *now}) if recorded.get(key) != now.get(key)]


def differences(recorded: Mapping[str, Any], now: Mapping[str, Any], then: str = "now") -> list[str]:
    """Only what differs, one phrase each, with the path of the value in nested records.

    Args:
        recorded: a record of JSON's types.
        now: the other record.
        then: the word for the other record.

    >>> from medalign.pipeline.runs.run_differences import differences
    >>> differences({"decoding": {"name": "vcd", "alpha": 1}}, {"decoding": {"name": "vcd", "alpha": 2}})
    ['decoding.alpha: recorded 1, now 2']
    """
    return [
        line
        for key in differing_keys(recorded, now)
        for line in _lines(key, recorded.get(key, _NOTHING), now.get(key, _NOTHING), then)
    ]


def method_changed(lines: Sequence[str]) -> bool:
    """Whether one of these differences is the source of a decoding method."""
    return any(": the source of method " in line for line in lines)


def _lines(path: str, recorded: Any, now: Any, then: str) -> Iterator[str]:
    if recorded == now:
        return
    if isinstance(recorded, Mapping) and isinstance(now, Mapping):
        yield from _record_lines(path, recorded, now, then)
    elif _are_records(recorded) and _are_records(now) and len(recorded) == len(now):
        for place, (before, after) in enumerate(zip(recorded, now, strict=True)):
            yield from _lines(f"{path}[{place}]", before, after, then)
    else:
        yield f"{path}: recorded {_text(recorded)}, {then} {_text(now)}"


def _record_lines(path: str, recorded: Mapping[str, Any], now: Mapping[str, Any], then: str) -> Iterator[str]:
    """Differences within one record."""
    for kind in _KINDS:
        if recorded.get(kind) != now.get(kind):
            yield f"{path}.{kind}: recorded {_text(recorded.get(kind))}, {then} {_text(now.get(kind))}"
            return
    for key in sorted({*recorded, *now}):
        before, after = recorded.get(key, _NOTHING), now.get(key, _NOTHING)
        if key == CODE and before != after:
            name = next((recorded[kind] for kind in _KINDS if kind in recorded), path)
            yield f"{path}: the source of method {name!r} changed"
        else:
            yield from _lines(f"{path}.{key}", before, after, then)


def _are_records(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, Mapping) for item in value)


def _text(value: Any) -> str:
    """A value; of a record that the other side does not have, only its size."""
    if value is _NOTHING:
        return "nothing"
    return f"a record of {counted(len(value), 'value')}" if isinstance(value, Mapping) else repr(value)
