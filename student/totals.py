"""Sums of the loss terms over the batches between two log lines."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .aligned import AlignedOutput

TERMS = ("loss_lm", "loss_vis", "loss_att")


class LossTotals:
    """Sums and weights of the three terms since the last log; rows as TERMS, columns (sum, weight).

    What batches add stays on the device until it is needed: the host waits once a step, not once a batch.
    """

    def __init__(self) -> None:
        self._values = torch.zeros(len(TERMS), 2, dtype=torch.float64)
        self._pending: list[tuple[int, Tensor, float]] = []

    def add(self, output: AlignedOutput, tokens: float, images: float) -> None:
        """Add a batch's sums over answer tokens and over images, and their numbers, both divided by `tokens`, `images`.

        Divided by the counts of the batch's whole optimiser step, every step weighs the same, as in the Trainer's own
        mean of `loss`; undivided, every token and every image does.
        """
        terms = ((output.loss_lm, tokens), (output.loss_vis, images), (output.loss_att, images))
        for row, (term, divisor) in enumerate(terms):
            if term is not None and divisor > 0:
                numbers = output.answer_tokens if row == 0 else torch.ones_like(term)
                pair = torch.stack([term.detach().sum().float(), numbers.sum().float()])
                self._pending.append((row, pair, divisor))

    def non_finite(self) -> list[bool]:
        """Of each term, whether its sum in this process is NaN or infinite."""
        self._settle()
        return [not math.isfinite(total) for total in self._values[:, 0].tolist()]

    def drain(self, reduce: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Weighted means over all processes; a term that never occurred is left out."""
        self._settle()
        values = reduce(self._values).cpu()
        self._values = torch.zeros_like(self._values)
        return {
            name: float(total / count) for name, (total, count) in zip(TERMS, values, strict=True) if float(count) > 0
        }

    def _settle(self) -> None:
        if not self._pending:
            return
        pairs = torch.stack([pair for _, pair, _ in self._pending]).cpu().double()
        for (row, _, divisor), pair in zip(self._pending, pairs, strict=True):
            self._values[row] += pair / divisor
        self._pending.clear()
