"""The learning rate of each optimizer step, as a share of the peak learning rate."""

import math
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR

from ...errors import InputError


def warmup_steps(steps: int, ratio: float) -> int:
    """Number of warmup steps: a share of all optimizer steps, rounded up."""
    return math.ceil(steps * ratio)


def rate_factor(step: int, *, steps: int, warmup: int) -> float:
    """Share of the peak learning rate at step `step` (from 0) of `steps`, in [0, 1].

    Linear warmup (step + 1) / warmup in the first `warmup` steps, so that the first step already trains; then the
    cosine of SGDR (arXiv 1608.03983, Eq. 5, one period), 1 at the first step after warmup and 0 after the last step.
    """
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, steps - warmup))))


def make_scheduler(optimizer: torch.optim.Optimizer, *, steps: int, ratio: float) -> LambdaLR:
    """Create torch's scheduler with `rate_factor` for every parameter group."""
    return LambdaLR(optimizer, partial(rate_factor, steps=steps, warmup=warmup_steps(steps, ratio)))


def check_schedule(scheduler: Any, checkpoint: Path) -> None:
    """Check that a checkpoint's next learning rates are those of this schedule.

    Raises:
        InputError: they differ, because a version of medalign with another schedule wrote the checkpoint.
    """
    step = scheduler.last_epoch
    for rate, peak, factor in zip(scheduler.get_last_lr(), scheduler.base_lrs, scheduler.lr_lambdas, strict=True):
        if not math.isclose(rate, peak * factor(step), rel_tol=1e-6, abs_tol=1e-12 * peak):
            raise InputError(
                f"{checkpoint} was written with a different learning-rate schedule: at step {step + 1} its learning "
                f"rate is {rate:g}, but this schedule's is {peak * factor(step):g}. Finish this run with the version "
                "of medalign that started it, or start again with another --out"
            )
