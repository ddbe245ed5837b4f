"""A frozen language model in 4 or 8 bits (QLoRA), by bitsandbytes."""

import importlib.util
from typing import Literal

import torch
from transformers import BitsAndBytesConfig

from ...errors import SettingsError

Quantisation = Literal["4bit", "8bit"]

KEPT_WHOLE = ["vision_tower", "multi_modal_projector", "lm_head"]
"""Modules that stay in the run's own precision."""


def quantisation_config(kind: Quantisation, dtype: torch.dtype) -> BitsAndBytesConfig:
    """4 bits: NF4 with quantised constants, computed in `dtype`, as in QLoRA (arXiv 2305.14314). 8 bits: LLM.int8().

    Raises:
        SettingsError: bitsandbytes is not installed.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        raise SettingsError(
            f"student.quantization is {kind!r}, but the package 'bitsandbytes' is not installed: "
            "pip install bitsandbytes, or set it to null"
        )
    if kind == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=KEPT_WHOLE)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=KEPT_WHOLE,
    )


def quantised_device_map() -> dict[str, int | str]:
    """Where a quantized model is loaded, all of it: it cannot be moved later. `pick_device` made the GPU current."""
    return {"": torch.cuda.current_device() if torch.cuda.is_available() else "cpu"}
