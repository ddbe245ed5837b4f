"""The learning rate of each optimizer step, as a share of the highest one."""

import math
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR

from ...errors import InputError


def warmup_steps(steps: int, ratio: float) -> int:
    """Optimizer steps of the warm-up: a share of all steps, rounded up."""
    return math.ceil(steps * ratio)


def rate_factor(step: int, *, steps: int, warmup: int) -> float:
    """Share of the highest learning rate that step `step` (from 0) of `steps` trains with, in [0, 1].

    Linear warm-up (step + 1) / warmup in the first `warmup` steps, so that the first step trains; then the cosine of
    SGDR (arXiv 1608.03983, Eq. 5, one period), 1 at the first step behind the warm-up and 0 behind the last step.
    """
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, steps - warmup))))


def make_scheduler(optimizer: torch.optim.Optimizer, *, steps: int, ratio: float) -> LambdaLR:
    """torch's scheduler of `rate_factor` for every parameter group."""
    return LambdaLR(optimizer, partial(rate_factor, steps=steps, warmup=warmup_steps(steps, ratio)))


def check_schedule(scheduler: Any, checkpoint: Path) -> None:
    """Check that a checkpoint's next learning rates are those of this schedule.

    Raises:
        InputError: they are not: a version of medalign with another schedule wrote the checkpoint.
    """
    step = scheduler.last_epoch
    for rate, highest, factor in zip(scheduler.get_last_lr(), scheduler.base_lrs, scheduler.lr_lambdas, strict=True):
        if not math.isclose(rate, highest * factor(step), rel_tol=1e-6, abs_tol=1e-12 * highest):
            raise InputError(
                f"{checkpoint} was written with another learning-rate schedule: step {step + 1} has {rate:g} there and "
                f"{highest * factor(step):g} here. Finish this run with the version of medalign that began it, or "
                "start again with another --out"
            )
