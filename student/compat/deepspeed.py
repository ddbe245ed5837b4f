"""Reading and writing DeepSpeed's parameters; tested with DeepSpeed 0.19.8.

ZeRO-3 keeps shards of a parameter behind an empty tensor. ZeRO in half precision keeps float32 master values next to
those that the model computes with. DeepSpeed is imported only if it has already wrapped the parameter.
"""

from typing import Any

import torch
from torch import Tensor


def is_partitioned(parameter: Any) -> bool:
    """Whether ZeRO-3 has partitioned the parameter."""
    return hasattr(parameter, "ds_id")


def has_master(parameter: Any) -> bool:
    """Whether the optimizer updates a float32 master value instead of the parameter itself."""
    managed = hasattr(parameter, "_z3_optimizer") or hasattr(parameter, "_hp_mapping")
    return managed and parameter.requires_grad and parameter.dtype != torch.float32


def whole_shape(parameter: Any) -> tuple[int, ...]:
    """Shape of the full value, even if this process has only a shard."""
    return tuple(parameter.ds_shape if is_partitioned(parameter) else parameter.shape)


def master_value(parameter: Any) -> Tensor:
    """Return the float32 master value that the optimizer updates; all processes must call this."""
    from deepspeed.utils import safe_get_full_fp32_param  # pyright: ignore[reportMissingImports]

    value: Tensor = safe_get_full_fp32_param(parameter)
    return value


def gathered(parameter: Any) -> Tensor:
    """Gather the full value of a partitioned parameter; all processes must call this."""
    import deepspeed

    with deepspeed.zero.GatheredParameters([parameter]):
        value: Tensor = parameter.detach().clone()
    assert value.numel(), "DeepSpeed gathered an empty tensor"
    return value


def scatter(parameter: Any, value: Tensor) -> None:
    """Distribute a full value over the processes; all processes must call this."""
    import deepspeed

    with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0):
        parameter.data.copy_(value)


def set_master(parameter: Any, value: Tensor) -> None:
    """Set the float32 master value that the optimizer updates."""
    from deepspeed.utils import safe_set_full_fp32_param  # pyright: ignore[reportMissingImports]

    safe_set_full_fp32_param(parameter, value.float())
