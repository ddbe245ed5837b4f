"""Select a decoding method from options, and describe all methods."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, get_args, get_type_hints

from ...errors import SettingsError
from ...student.decoding import Decoding, Method, choose_decoding, find_method, method_names
from ..training.settings_loading import apply_override

SECTION = "decode"


def read_decoding(name: str, overrides: Sequence[str] | Mapping[str, Any], *, max_new_tokens: int) -> Decoding:
    """A method by name, with overrides such as `decode.alpha=0.5`, or with settings by name.

    Raises:
        SettingsError: The method or setting does not exist, a value is out of range, or an override has another prefix.
    """
    if isinstance(overrides, Mapping):
        return choose_decoding(name, overrides, max_new_tokens=max_new_tokens)
    values: dict[str, Any] = {}
    for override in overrides:
        apply_override(values, override)
    others = sorted(set(values) - {SECTION})
    if others or not isinstance(values.get(SECTION, {}), dict):
        wrong = others[0] if others else SECTION
        raise SettingsError(f"--set must be decode.KEY=VALUE here, such as decode.alpha=0.5; found {wrong!r}")
    return choose_decoding(name, values.get(SECTION, {}), max_new_tokens=max_new_tokens)


def describe_decodings() -> dict[str, dict[str, Any]]:
    """Descriptions of every decoding method by name, from the methods themselves; `list_decodings` is faster.

    A method whose package cannot be loaded has the reason as its formula.
    """
    described = {}
    for name in method_names():
        try:
            described[name] = _describe(find_method(name))
        except SettingsError as error:
            described[name] = {"formula": str(error), "paper": "-", "needs_image": False, "settings": {}}
    return described


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
    """The description in the annotation of a field."""
    return next((note.description for note in get_args(hint)[1:] if getattr(note, "description", None)), "")
