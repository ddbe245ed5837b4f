"""Values of parameters and of optimiser states that may be spread over processes (FSDP2, ZeRO-3)."""

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor

from .compat import deepspeed


def full_value(tensor: Tensor) -> Tensor:
    """The whole value that the optimizer steps, detached, on the CPU.

    Where it is spread over processes, all of them must call this.
    """
    if deepspeed.has_master(tensor):
        return deepspeed.master_value(tensor).cpu()
    if deepspeed.is_partitioned(tensor):
        return deepspeed.gathered(tensor).cpu()
    tensor = tensor.detach()
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).cpu().clone()


def put_back(model: nn.Module) -> None:
    """Under FSDP2: leave each process its own pieces again; after an evaluation the outermost parameters are whole."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def is_sharded(model: nn.Module) -> bool:
    """Whether FSDP2 has spread the model's parameters."""
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def set_value(parameter: nn.Parameter, value: Tensor) -> None:
    """Copy a whole value into a parameter, each process its own piece."""
    with torch.no_grad():
        if deepspeed.is_partitioned(parameter):
            deepspeed.scatter(parameter, value)
        else:
            parameter.copy_(placed_like(parameter, value))
        if deepspeed.has_master(parameter):
            deepspeed.set_master(parameter, value.to(parameter.device))


def whole_shape(parameter: nn.Parameter) -> tuple[int, ...]:
    """Shape of the whole value, also where this process has only a piece of it."""
    return deepspeed.whole_shape(parameter)


def placed_like(parameter: Tensor, value: Tensor) -> Tensor:
    """A whole value on the parameter's device, and spread as the parameter is where it has the same shape."""
    value = value.to(parameter.device)
    if isinstance(parameter, DTensor) and value.shape == parameter.shape:
        return distribute_tensor(value, parameter.device_mesh, parameter.placements)
    return value
