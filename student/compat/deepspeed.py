"""DeepSpeed's parameters, as medalign reads and writes them; tried with DeepSpeed 0.19.8.

ZeRO-3 keeps pieces of a parameter behind an empty tensor. ZeRO in half precision keeps float32 values beside those that
the model computes with, and steps them. DeepSpeed is imported only where it has already wrapped the parameter.
"""

from typing import Any

import torch
from torch import Tensor


def is_partitioned(parameter: Any) -> bool:
    """Whether ZeRO-3 holds it."""
    return hasattr(parameter, "ds_id")


def has_master(parameter: Any) -> bool:
    """Whether the optimizer steps a float32 value that is not the parameter itself."""
    managed = hasattr(parameter, "_z3_optimizer") or hasattr(parameter, "_hp_mapping")
    return managed and parameter.requires_grad and parameter.dtype != torch.float32


def whole_shape(parameter: Any) -> tuple[int, ...]:
    """Shape of the whole value, also where this process has only a piece of it."""
    return tuple(parameter.ds_shape if is_partitioned(parameter) else parameter.shape)


def master_value(parameter: Any) -> Tensor:
    """The float32 value that the optimizer steps; all processes must call this."""
    from deepspeed.utils import safe_get_full_fp32_param  # pyright: ignore[reportMissingImports]

    value: Tensor = safe_get_full_fp32_param(parameter)
    return value


def gathered(parameter: Any) -> Tensor:
    """The whole value of a partitioned parameter; all processes must call this."""
    import deepspeed

    with deepspeed.zero.GatheredParameters([parameter]):
        value: Tensor = parameter.detach().clone()
    assert value.numel(), "DeepSpeed gathered nothing"
    return value


def scatter(parameter: Any, value: Tensor) -> None:
    """Give every process its piece of a whole value; all processes must call this."""
    import deepspeed

    with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0):
        parameter.data.copy_(value)


def set_master(parameter: Any, value: Tensor) -> None:
    """Set the float32 value that the optimizer steps."""
    from deepspeed.utils import safe_set_full_fp32_param  # pyright: ignore[reportMissingImports]

    safe_set_full_fp32_param(parameter, value.float())
