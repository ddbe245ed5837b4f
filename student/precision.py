"""The precision of a pass: half precision inside the model, float32 for everything that is compared or added up.

Precision is decided here alone, so that one process, DDP, FSDP2 and ZeRO compute the same: trained values stay float32
under each of them, and autocast casts what a product needs. accelerate's and DeepSpeed's own half-precision modes would
cast the trained values, the teacher's targets and the losses as well.
"""

from contextlib import AbstractContextManager

import torch


def computing_in(dtype: torch.dtype | None, device: torch.device) -> AbstractContextManager[None]:
    """Autocast to `dtype`, whatever surrounds it; None: every product in the precision of its tensors."""
    context: AbstractContextManager[None] = torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)
    return context


def as_stored(device: torch.device) -> AbstractContextManager[None]:
    """No autocast, whatever surrounds it: float32 tensors are multiplied in float32."""
    return computing_in(None, device)
