"""Checks of a base's folder and weights that apply to every format."""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import GenerationConfig, LlavaConfig, LlavaForConditionalGeneration

from ...errors import InputError
from ...plain_text import counted
from ..file_errors import is_file, read_object, reading
from ..finite import is_finite
from ..quiet_transformers import quiet_transformers

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
GENERATION_FILE = "generation_config.json"


def check_no_adapter(folder: Path) -> None:
    """Check that a base's folder has no LoRA files, which transformers would apply silently.

    Raises:
        InputError: there are LoRA files.
    """
    lora_files = [name for name in ADAPTER_FILES if is_file(folder / name)]
    if lora_files:
        raise InputError(
            f"{folder} contains a base and also {', '.join(lora_files)}. transformers would apply that adapter "
            "silently, and the base's fingerprint would not show it. Move the adapter's files to a separate folder"
        )


def read_generation(folder: Path) -> GenerationConfig | None:
    """Read generation_config.json of a folder; None if there is none.

    Raises:
        InputError: the file cannot be read, or its end tokens are not token ids.
    """
    path = folder / GENERATION_FILE
    if not is_file(path):
        return None  # transformers then uses the special tokens of config.json
    values = read_object(path)
    ends = values.get("eos_token_id")
    if not _are_ids(ends):
        raise InputError(f"{path}: eos_token_id is {ends!r}, not a token id or a list of token ids")
    with reading(path), quiet_transformers():  # warns about sampling settings, which medalign does not read
        return GenerationConfig.from_dict(values)


def check_size(folder: Path, config: LlavaConfig, stored: int) -> None:
    """Check that config.json does not describe a far larger model than is stored, which would exhaust the memory.

    Args:
        stored: number of values in the weight files. Tied weights are stored once, so the model may have twice as many.

    Raises:
        InputError: the model has more than twice as many values.
    """
    with reading(folder / "config.json"):
        described = _count_described(config.to_json_string(use_diff=False))
    if described > 2 * stored:
        raise InputError(
            f"{folder}: the weights do not match config.json, which describes a model with {described:,} weights; the "
            f"files contain {stored:,}. Copy the complete folder again, with the config.json of these weights"
        )


@lru_cache(maxsize=8)  # the same base is loaded for each adapter that is compared
def _count_described(config: str) -> int:
    """Count the weights of the model that a config.json describes, without memory for them."""
    with torch.device("meta"):
        model = LlavaForConditionalGeneration(LlavaConfig.from_dict(json.loads(config)))
    return sum(value.numel() for value in model.parameters())


def _are_ids(ends: Any) -> bool:
    numbers = ends if isinstance(ends, list) else [] if ends is None else [ends]
    return all(isinstance(number, int) and not isinstance(number, bool) and number >= 0 for number in numbers)


@torch.no_grad()
def check_finite_model(model: nn.Module, where: Path) -> None:
    """Check that every weight is finite in the precision that it was loaded in. Reads each value once.

    Raises:
        InputError: some are not; the message names the first tensor.
    """
    wrong = [name for name, value in model.named_parameters() if not is_finite(value)]
    if wrong:
        first = dict(model.named_parameters())[wrong[0]]
        raise InputError(
            f"{where}: {counted(len(wrong), 'tensor contains', 'tensors contain')} NaN or infinite values as "
            f"{str(first.dtype).removeprefix('torch.')}, first: {wrong[0]}. The file is damaged, or the range of this "
            "precision is too small for it; then choose bfloat16 or float32"
        )
