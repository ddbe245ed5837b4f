"""What adapter_config.json may say: what medalign's own training writes, and peft's defaults for all the rest."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peft import LoraConfig

from ...errors import InputError

SET_BY_TRAINING = {
    "r",
    "lora_alpha",
    "lora_dropout",
    "target_modules",
    "exclude_modules",
    "task_type",
    "peft_type",
    "peft_version",
    "base_model_name_or_path",
    "inference_mode",
    "revision",
}
"""Fields that differ between adapters of medalign, or that have no part in the result of an adapter on disk."""


def fields_of_training(path: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that adapters of medalign differ in; all others have peft's defaults.

    A field that the installed peft does not know may be off, or a number or a name: those belong to a method that
    another field turns on, and medalign turns on none.

    Raises:
        InputError: a field differs from peft's default, so that the adapter would be another than medalign trains.
    """
    defaults = {field.name: getattr(_DEFAULTS, field.name) for field in dataclasses.fields(LoraConfig)}
    wrong = {
        name: value
        for name, value in values.items()
        if name not in SET_BY_TRAINING
        and (not _is_same(value, defaults[name]) if name in defaults else _turns_on(value))
    }
    if wrong:
        found = ", ".join(f"{name} is {value!r}"[:120] for name, value in sorted(wrong.items()))
        raise InputError(
            f"{path}: {found}; medalign trains LoRA without it, with one rank and one scale for all modules, and "
            "would compute something else than what was trained. Copy the file from the training's folder again"
        )
    return {name: value for name, value in values.items() if name in defaults.keys() & SET_BY_TRAINING}


_DEFAULTS = LoraConfig()


def _is_same(value: Any, default: Any) -> bool:
    """Whether a field has its default; releases differ in whether one that is off is null, false or empty."""
    if _is_off(default):
        return _is_off(value)
    return type(value) is type(default) and bool(value == default)


def _is_off(value: Any) -> bool:
    return value is None or value is False or value in ({}, [], "")


def _turns_on(value: Any) -> bool:
    return value is True or (isinstance(value, dict | list) and bool(value))
