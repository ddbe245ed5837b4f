"""Values of parameters and optimizer states that may be sharded over processes (FSDP2, ZeRO-3)."""

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor

from .compat import deepspeed


def full_value(tensor: Tensor) -> Tensor:
    """Return the full value that the optimizer updates, detached and on the CPU.

    If the value is sharded, all processes must call this.
    """
    if deepspeed.has_master(tensor):
        return deepspeed.master_value(tensor).cpu()
    if deepspeed.is_partitioned(tensor):
        return deepspeed.gathered(tensor).cpu()
    tensor = tensor.detach()
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).cpu().clone()


def put_back(model: nn.Module) -> None:
    """Reshard the model under FSDP2; after an evaluation, the root module's parameters are still unsharded."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def is_sharded(model: nn.Module) -> bool:
    """Whether FSDP2 has sharded the model's parameters."""
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def set_value(parameter: nn.Parameter, value: Tensor) -> None:
    """Copy a full value into a parameter; each process copies its shard."""
    with torch.no_grad():
        if deepspeed.is_partitioned(parameter):
            deepspeed.scatter(parameter, value)
        else:
            parameter.copy_(placed_like(parameter, value))
        if deepspeed.has_master(parameter):
            deepspeed.set_master(parameter, value.to(parameter.device))


def whole_shape(parameter: nn.Parameter) -> tuple[int, ...]:
    """Shape of the full value, even if this process has only a shard."""
    return deepspeed.whole_shape(parameter)


def placed_like(parameter: Tensor, value: Tensor) -> Tensor:
    """Move a full value to the parameter's device, and shard it like the parameter if the shapes are equal."""
    value = value.to(parameter.device)
    if isinstance(parameter, DTensor) and value.shape == parameter.shape:
        return distribute_tensor(value, parameter.device_mesh, parameter.placements)
    return value
