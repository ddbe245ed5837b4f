"""Sums of the loss terms between two log lines, and detection of non-finite steps."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from ..alignment.aligned_student import AlignedOutput

TERMS = ("loss_lm", "loss_vis", "loss_att")


@dataclass(frozen=True, kw_only=True, slots=True)
class StepHealth:
    """Losses and gradient that were NaN or infinite in one optimizer step, in any process."""

    step: int
    losses: tuple[str, ...]
    """Terms whose sum over the step's batches was not finite."""
    gradient: bool
    """Whether the gradient norm was not finite."""
    rate: float
    """Learning rate of the step."""


@dataclass(kw_only=True, slots=True)
class _Batches:
    """Batches of one step, possibly unfinished, whose values are still on the device."""

    rows: list[int] = field(default_factory=list)
    """Index of the term of each value."""
    values: list[Tensor] = field(default_factory=list)
    """[3]: sum, weight, and the divisor of both."""
    step: int = 0
    rate: float = 0.0
    norm: Tensor | float = 0.0


class LossTotals:
    """Sums and weights of the terms since the last log; rows as in `terms`, columns (sum, weight).

    Values of batches and steps stay on the device until `settle` or `drain`; only these wait for the device.
    """

    def __init__(self, terms: Sequence[str] = TERMS) -> None:
        self._terms = tuple(terms)
        self._values = torch.zeros(len(self._terms), 2, dtype=torch.float64)
        self._ended: list[_Batches] = []
        self._open = _Batches()

    def add(self, output: AlignedOutput, tokens: Tensor, images: Tensor, targets: Tensor) -> None:
        """Add a batch's sums over answer tokens and images and their counts, divided by `tokens` and `images`.

        L_att is a mean over the images that have a target, and is divided by `targets`.

        Divided by the counts of the optimizer step, every step has the same weight, as in the Trainer's mean of `loss`.
        Undivided, every token and every image has the same weight.
        """
        terms = ((output.loss_lm, tokens), (output.loss_vis, images), (output.loss_att, targets))
        for row, (term, divisor) in enumerate(terms):
            if term is not None:
                counts = output.answer_tokens if row == 0 else torch.ones_like(term)
                if row == 2 and output.has_target is not None:
                    counts = output.has_target
                self.add_term(row, term, counts, divisor)

    def add_term(self, row: int, term: Tensor, counts: Tensor, divisor: Tensor) -> None:
        """Add a batch's values of one term and their weights, both divided by `divisor` (see `add`)."""
        self._open.rows.append(row)
        self._open.values.append(torch.stack([term.detach().sum().float(), counts.sum().float(), divisor]))

    def end_step(self, step: int, gradient_norm: Tensor | float | None, rate: float) -> None:
        """Mark the batches added since the last call as those of optimizer step `step`."""
        self._open.step, self._open.rate = step, rate
        self._open.norm = 0.0 if gradient_norm is None else _unsharded(gradient_norm)
        self._ended.append(self._open)
        self._open = _Batches()

    @property
    def unsettled(self) -> int:
        """Number of ended steps that have not been checked."""
        return len(self._ended)

    def settle(self, reduce: Callable[[Tensor], Tensor]) -> list[StepHealth]:
        """Sum the ended steps and report what was not finite in each; waits for the device once.

        `reduce` sums over processes, which must all have ended the same steps.
        """
        ended, self._ended = self._ended, []
        if not ended:
            return []
        flags = torch.tensor([self._settle(batches) for batches in ended])
        return [
            StepHealth(
                step=batches.step,
                losses=tuple(name for name, flag in zip(self._terms, row, strict=False) if flag),
                gradient=bool(row[-1]),
                rate=batches.rate,
            )
            for batches, row in zip(ended, reduce(flags).tolist(), strict=True)
        ]

    def drain(self, reduce: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Weighted means, over all processes, of settled steps and of batches outside of steps (evaluation).

        Terms that never occurred are omitted.
        """
        self._settle(self._open)
        self._open = _Batches()
        values = reduce(self._values).cpu()
        self._values = torch.zeros_like(self._values)
        named = zip(self._terms, values, strict=True)
        return {name: float(total / count) for name, (total, count) in named if float(count) > 0}

    def _settle(self, batches: _Batches) -> list[float]:
        """Add batches to the sums; returns, for each term and the gradient norm, 1 if it is not finite, else 0."""
        sums = [0.0] * len(self._terms)
        if batches.values:
            for row, (total, weight, divisor) in zip(batches.rows, torch.stack(batches.values).tolist(), strict=True):
                sums[row] += total
                if divisor > 0:
                    self._values[row] += torch.tensor([total, weight], dtype=torch.float64) / divisor
        return [float(not math.isfinite(value)) for value in (*sums, float(batches.norm))]


def _unsharded(norm: Tensor | float) -> Tensor | float:
    """Gather a gradient norm that FSDP2 has sharded."""
    return norm.full_tensor() if isinstance(norm, DTensor) else norm
