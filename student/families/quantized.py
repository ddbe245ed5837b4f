"""Loading the frozen language model in 4 or 8 bits with bitsandbytes (QLoRA)."""

import importlib.util

import torch
from transformers import BitsAndBytesConfig

from ...choices import Quantization
from ...errors import SettingsError

UNQUANTIZED_MODULES = ["vision_tower", "multi_modal_projector", "lm_head"]
"""Modules that stay in the run's precision."""


def quantization_config(kind: Quantization, dtype: torch.dtype) -> BitsAndBytesConfig:
    """Configure 4 bits (NF4, double quantization, computed in `dtype`, as in arXiv 2305.14314) or 8 bits (LLM.int8()).

    Raises:
        SettingsError: bitsandbytes is not installed.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        raise SettingsError(
            f"student.quantization is {kind!r}, but the package 'bitsandbytes' is not installed. Run "
            "`pip install bitsandbytes`, or set student.quantization to null"
        )
    if kind == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=UNQUANTIZED_MODULES)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=UNQUANTIZED_MODULES,
    )


def quantized_device_map() -> dict[str, int | str]:
    """Device of the whole quantized model, which cannot be moved later. `pick_device` has set the current GPU."""
    return {"": torch.cuda.current_device() if torch.cuda.is_available() else "cpu"}
