"""Precision of the forward pass: half precision inside the model, float32 for losses and sums.

Precision is set only here, so that one process, DDP, FSDP2 and ZeRO compute the same: trained values stay float32, and
autocast casts the inputs of matrix products. The half-precision modes of accelerate and DeepSpeed would also cast the
trained values, the teacher's targets and the losses.
"""

from contextlib import AbstractContextManager

import torch


def computing_in(dtype: torch.dtype | None, device: torch.device) -> AbstractContextManager[None]:
    """Autocast to `dtype`, regardless of outer contexts; None computes in the precision of the tensors."""
    context: AbstractContextManager[None] = torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)
    return context


def as_stored(device: torch.device) -> AbstractContextManager[None]:
    """Disable autocast, regardless of outer contexts, so float32 tensors are multiplied in float32."""
    return computing_in(None, device)
