"""Check of adapter_config.json: it may contain only what medalign writes, and peft's defaults."""

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
    "auto_mapping",
    "peft_type",
    "peft_version",
    "base_model_name_or_path",
    "inference_mode",
    "revision",
}
"""Fields that differ between adapters of medalign, or that do not affect the output of a saved adapter."""


def fields_of_training(path: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    """Select the fields that differ between adapters of medalign; all others must have peft's defaults.

    A field that the installed peft does not know may be off, a number or a string: such values belong to a method that
    another field enables, and medalign enables none.

    Raises:
        InputError: a field differs from peft's default, so the adapter is not of a kind that medalign trains.
    """
    defaults = {field.name: getattr(_DEFAULTS, field.name) for field in dataclasses.fields(LoraConfig)}
    wrong = {
        name: value
        for name, value in values.items()
        if name not in SET_BY_TRAINING
        and (not _is_same(value, defaults[name]) if name in defaults else _turns_on(value))
    }
    if wrong:
        fields = ", ".join(f"{name} is {value!r}"[:120] for name, value in sorted(wrong.items()))
        raise InputError(
            f"{path}: {fields}. medalign trains plain LoRA, with one rank and one scale for all modules, so its output "
            "would differ from what was trained. Copy the file from the training run's folder again"
        )
    return {name: value for name, value in values.items() if name in defaults.keys() & SET_BY_TRAINING}


_DEFAULTS = LoraConfig()


def _is_same(value: Any, default: Any) -> bool:
    """Whether a field has its default value; peft releases write null, false or empty for a field that is off."""
    if _is_off(default):
        return _is_off(value)
    return type(value) is type(default) and bool(value == default)


def _is_off(value: Any) -> bool:
    return value is None or value is False or value in ({}, [], "")


def _turns_on(value: Any) -> bool:
    return value is True or (isinstance(value, dict | list) and bool(value))
