"""LoRA merged into the weights it belongs to."""

from typing import Any, cast

import torch
from peft import PeftModel
from torch import Tensor
from transformers import LlavaForConditionalGeneration

from ..alignment.aligned_student import AlignedStudent
from ..compat.peft import lora_updates


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


@torch.no_grad()
def merge_for_inference(model: AlignedStudent) -> float | None:
    """Merge a student's LoRA into its weights, each in its own precision, and remove peft's layers.

    A weight in half precision has few digits, and an update below half its last digit is rounded away. How much of the
    update remains is measured: the sum of `change * update` over the sum of `update * update`, over all weights, where
    `change` is the merged weight less the old one. It is 1 where nothing is lost and 0 where all is.

    Returns:
        That share; `None` where the student has no LoRA.
    """
    if not isinstance(model.llava, PeftModel):
        return None
    kept = whole = 0.0
    for module, weight in lora_updates(model.llava):
        old = cast(Tensor, module.weight).detach()
        merged, before = weight.to(old.dtype), old.float()
        update = weight - before
        module.weight.data = merged
        kept += float(((merged.float() - before) * update).sum(dtype=torch.float64))
        whole += float(update.square().sum(dtype=torch.float64))
    model.llava = model.llava.unload()
    return kept / whole if whole > 0 else 1.0
