"""Copies to a device for which the host does not wait."""

import torch
from torch import Tensor


def to_device(value: Tensor, device: torch.device) -> Tensor:
    """`value` on `device`.

    From ordinary memory, a copy to a GPU waits until all kernels queued before it have run; from pinned memory the GPU
    fetches it in its turn. torch keeps the pinned memory until then.
    """
    if device.type != "cuda" or value.is_cuda:
        return value.to(device)
    return value.pin_memory().to(device, non_blocking=True)
