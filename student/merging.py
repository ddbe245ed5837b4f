"""LoRA merged into the weights it belongs to."""

from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from transformers import LlavaForConditionalGeneration


@torch.no_grad()
def merge_lora(llava: Any, dtype: torch.dtype) -> LlavaForConditionalGeneration:
    """The model without peft, in `dtype`; each merged weight is rounded once, from float32.

    Args:
        llava: transformers' Llava, with peft's LoRA around it or without.
        dtype: precision of the result.
    """
    if isinstance(llava, PeftModel):
        for module in llava.modules():
            if isinstance(module, LoraLayer):
                _merge(module, dtype)
        llava = llava.unload()
    llava.to(dtype)
    llava.config.dtype = dtype
    return llava


def _merge(module: Any, dtype: torch.dtype) -> None:
    """W + scaling B A, in float32."""
    base = module.get_base_layer()
    weight = base.weight.float()
    for name in module.active_adapters:
        update = module.lora_B[name].weight.float() @ module.lora_A[name].weight.float()
        weight = weight + module.scaling[name] * update
    base.weight.data = weight.to(dtype)
