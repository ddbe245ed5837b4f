"""LoRA merged into the weights it belongs to."""

from typing import Any

import torch
from peft import PeftModel
from transformers import LlavaForConditionalGeneration

from .compat.peft import lora_updates


@torch.no_grad()
def merge_lora(llava: Any, dtype: torch.dtype) -> LlavaForConditionalGeneration:
    """The model without peft, in `dtype`; each merged weight is rounded once, from float32.

    Args:
        llava: transformers' Llava, with peft's LoRA around it or without.
        dtype: precision of the result.
    """
    if isinstance(llava, PeftModel):
        for module, weight in lora_updates(llava):
            module.weight.data = weight.to(dtype)
        llava = llava.unload()
    llava.to(dtype)
    llava.config.dtype = dtype
    return llava
