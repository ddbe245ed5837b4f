"""Merging LoRA into the base's weights."""

from typing import Any, cast

import torch
from peft import PeftModel
from torch import Tensor
from transformers import LlavaForConditionalGeneration

from ..alignment.aligned_student import AlignedStudent
from ..compat.peft import lora_updates


@torch.no_grad()
def merge_lora(llava: Any, dtype: torch.dtype) -> LlavaForConditionalGeneration:
    """Merge LoRA, remove peft and cast to `dtype`; each merged weight is rounded once, from float32.

    Args:
        llava: transformers' Llava, with or without peft's LoRA.
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

    Weights in half precision have few digits, and rounding loses updates below half the last digit. The share of the
    update that remains is measured: the sum of `change * update` over the sum of `update * update`, over all weights,
    where `change` is the merged weight minus the old one. It is 1 if nothing is lost and 0 if everything is.

    Returns:
        That share; `None` if the student has no LoRA.
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
