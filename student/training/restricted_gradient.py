"""A loss whose gradient reaches only some parameters (`alignment.visual_gradient`)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..adapters.parameter_names import Part, part_of
from ..adapters.trainable import trainable_parameters


def parameters_of(model: nn.Module, parts: Sequence[Part]) -> list[nn.Parameter]:
    """The trained parameters of some parts."""
    return [parameter for name, parameter in trainable_parameters(model).items() if part_of(name) in parts]


def restrict_gradient(loss: Tensor, parameters: Sequence[nn.Parameter]) -> Tensor:
    """The same value, whose backward pass gives `parameters` the loss's gradient and all others none.

    The gradient g is computed here, by a backward pass through what lies between the loss and `parameters`, and the
    graph is kept. The result is linear in them, sum of g p, so processes reduce its gradient like any other.
    """
    gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    restricted = loss.detach()
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if gradient is not None:
            restricted = restricted + (gradient * (parameter - parameter.detach())).sum()
    return restricted
