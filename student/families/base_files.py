"""What is checked of a base's folder and weights in whichever format it is."""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import GenerationConfig, LlavaConfig, LlavaForConditionalGeneration

from ...errors import InputError
from ..file_errors import is_file, read_object, reading
from ..finite import is_finite
from ..quiet_transformers import quiet_transformers

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
GENERATION_FILE = "generation_config.json"


def check_no_adapter(folder: Path) -> None:
    """Check that no LoRA lies among a base's files: transformers would apply it without a word.

    Raises:
        InputError: one does.
    """
    found = [name for name in ADAPTER_FILES if is_file(folder / name)]
    if found:
        raise InputError(
            f"{folder} holds a base and also {', '.join(found)}: transformers would apply that adapter by itself, and "
            "the base's fingerprint would not tell. Move the adapter's files to a folder of their own"
        )


def read_generation(folder: Path) -> GenerationConfig | None:
    """generation_config.json of a folder; None where there is none.

    Raises:
        InputError: it cannot be read, or its end tokens are no ids.
    """
    path = folder / GENERATION_FILE
    if not is_file(path):
        return None  # transformers then takes the special tokens of config.json
    values = read_object(path)
    ends = values.get("eos_token_id")
    if not _are_ids(ends):
        raise InputError(f"{path}: eos_token_id is {ends!r}, not a token's id or a list of them")
    with reading(path), quiet_transformers():  # about settings of sampling, which no decoding here takes from it
        return GenerationConfig.from_dict(values)


def check_size(folder: Path, config: LlavaConfig, stored: int) -> None:
    """Check that config.json describes no far larger model than the files hold: what they lack would be allocated.

    Args:
        stored: how many numbers the weight files hold. Tied weights are stored once, so up to twice as many fit.

    Raises:
        InputError: the model is more than twice as large.
    """
    with reading(folder / "config.json"), torch.device("meta"):
        wanted = sum(value.numel() for value in LlavaForConditionalGeneration(config).parameters())
    if wanted > 2 * stored:
        raise InputError(
            f"{folder}: its weights do not fit its config.json, which describes a model of {wanted:,} weights; the "
            f"files hold {stored:,}. Copy the folder whole, with the config.json that belongs to these weights"
        )


def _are_ids(ends: Any) -> bool:
    numbers = ends if isinstance(ends, list) else [] if ends is None else [ends]
    return all(isinstance(number, int) and not isinstance(number, bool) and number >= 0 for number in numbers)


@torch.no_grad()
def check_finite_model(model: nn.Module, where: Path) -> None:
    """Check that every weight is finite in the precision that it was loaded in; reads each value once.

    Raises:
        InputError: some are not; the first is named.
    """
    wrong = [name for name, value in model.named_parameters() if not is_finite(value)]
    if wrong:
        first = dict(model.named_parameters())[wrong[0]]
        raise InputError(
            f"{where}: {len(wrong)} of its tensors hold values that are not finite (NaN or infinite) as "
            f"{str(first.dtype).removeprefix('torch.')}, first: {wrong[0]}. The file is damaged, or this precision is "
            "too narrow for it"
        )
