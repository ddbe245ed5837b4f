"""The decoding that a command was asked for, and descriptions of all of them."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, get_args, get_type_hints

from ...errors import SettingsError
from ...student.decoding import Decoding, Method, choose_decoding, decodings
from ..training.settings import apply_override

SECTION = "decode"


def read_decoding(name: str, overrides: Sequence[str] | Mapping[str, Any], *, max_new_tokens: int) -> Decoding:
    """A method by name, with overrides such as `decode.alpha=0.5`, or with settings by their names.

    Raises:
        SettingsError: no such method or setting, a value out of range, or an override of something else.
    """
    if isinstance(overrides, Mapping):
        return choose_decoding(name, overrides, max_new_tokens=max_new_tokens)
    values: dict[str, Any] = {}
    for override in overrides:
        apply_override(values, override)
    others = sorted(set(values) - {SECTION})
    if others or not isinstance(values.get(SECTION, {}), dict):
        wrong = others[0] if others else SECTION
        raise SettingsError(f"--set takes decode.KEY=VALUE here, for example decode.alpha=0.5; found {wrong!r}")
    return choose_decoding(name, values.get(SECTION, {}), max_new_tokens=max_new_tokens)


def describe_decodings() -> dict[str, dict[str, Any]]:
    """Every decoding method by name, described by itself; `list_decodings` is quicker."""
    return {name: _describe(method) for name, method in decodings().items()}


def _describe(method: Method) -> dict[str, Any]:
    hints = get_type_hints(method.settings, include_extras=True)
    defaults = method.settings()
    return {
        "formula": method.formula,
        "paper": method.paper,
        "needs_image": method.needs_image,
        "settings": {
            item.name: {"default": getattr(defaults, item.name), "what": _description(hints[item.name])}
            for item in fields(method.settings)
        },
    }


def _description(hint: Any) -> str:
    """The description in a field's annotation."""
    return next((note.description for note in get_args(hint)[1:] if getattr(note, "description", None)), "")
