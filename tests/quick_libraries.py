"""Work that other packages repeat in every call and that no test looks at: a tenth of the suite's time."""

import functools
from collections.abc import Callable
from typing import Any

import accelerate.accelerator
import torch
import typer.main
from torch.nn import init
from transformers import PreTrainedConfig


def install() -> None:
    """Build each command line once, and leave out what has no effect on a machine without a GPU.

    typer builds all commands again for every call. transformers formats every configuration that it reads, for a log
    that is off. torch keeps a seed and the stack of its caller for a GPU that it may find later, and computes initial
    values for weights without memory. accelerate collects garbage after each training to free the memory of a GPU.
    """
    setattr(typer.main, "get_command", functools.cache(typer.main.get_command))  # noqa: B010
    setattr(PreTrainedConfig, "__repr__", object.__repr__)  # noqa: B010
    setattr(accelerate.accelerator, "release_memory", _released)  # noqa: B010
    for name in ("kaiming_uniform_", "normal_", "uniform_"):
        setattr(init, name, _unless_on_meta(getattr(init, name)))
    if not torch.cuda.is_available():
        setattr(torch.cuda, "manual_seed_all", lambda seed: None)  # noqa: B010


def _released(*objects: Any) -> list[None]:
    return [None] * len(objects)


def _unless_on_meta(initialize: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    @functools.wraps(initialize)
    def call(tensor: torch.Tensor, *arguments: Any, **named: Any) -> torch.Tensor:
        return tensor if tensor.is_meta else initialize(tensor, *arguments, **named)

    return call
