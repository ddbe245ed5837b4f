"""Asynchronous copies to a device."""

import torch
from torch import Tensor


def to_device(value: Tensor, device: torch.device) -> Tensor:
    """Copy `value` to `device` without blocking the host.

    A copy from pageable memory to a GPU waits for all kernels queued before it; a copy from pinned memory is queued.
    torch keeps the pinned memory alive until the copy is done.
    """
    if device.type != "cuda" or value.is_cuda:
        return value.to(device)
    return value.pin_memory().to(device, non_blocking=True)
