"""Scores of the next token from one or more branches: what a search asks for. R rows, V tokens."""

import math
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from .branch import Branch

Combine = Callable[[int, Sequence[Tensor]], Tensor]
"""From the number of the token that is looked for (the first is 1) and each branch's logits [R, V] to scores [R, V]:
log-probabilities up to a constant, -inf where a token is ruled out."""


@runtime_checkable
class Scorer(Protocol):
    def start(self) -> Float[Tensor, "rows vocab"]:
        """Scores of the first token, one row a sample."""
        ...

    def advance(self, tokens: Int[Tensor, " rows"]) -> Float[Tensor, "rows vocab"]:
        """Append a token to each row; scores of the next."""
        ...

    def select(self, rows: Int[Tensor, " selected"]) -> None:
        """Go on with these rows; one may be there several times."""
        ...


class Branches:
    """Branches that are fed the same tokens, and how their logits become scores; by default the first one's do."""

    def __init__(self, branches: Sequence[Branch], combine: Combine = lambda number, logits: logits[0]) -> None:
        self.branches = tuple(branches)
        self._combine = combine
        self._number = 1

    def start(self) -> Float[Tensor, "rows vocab"]:
        return self._combined([branch.logits for branch in self.branches])

    def advance(self, tokens: Int[Tensor, " rows"]) -> Float[Tensor, "rows vocab"]:
        self._number += 1
        return self._combined([branch.step(tokens) for branch in self.branches])

    def select(self, rows: Int[Tensor, " selected"]) -> None:
        for branch in self.branches:
            branch.select(rows)

    def _combined(self, logits: Sequence[Tensor]) -> Float[Tensor, "rows vocab"]:
        scores: Tensor = self._combine(self._number, logits)
        self.branches[0].watch.see_scores(scores, self.branches[0].owner)
        return scores


def contrast(
    positive: Float[Tensor, "rows vocab"], negative: Float[Tensor, "rows vocab"], alpha: float
) -> Float[Tensor, "rows vocab"]:
    """(1 + alpha) positive - alpha negative."""
    return (1 + alpha) * positive - alpha * negative


def only_plausible(
    scores: Float[Tensor, "rows vocab"], reference: Float[Tensor, "rows vocab"], beta: float
) -> Float[Tensor, "rows vocab"]:
    """Rule out tokens less than beta times as likely as the likeliest by `reference` (log-probabilities up to a
    constant; the adaptive plausibility constraint of contrastive decoding, Li et al. 2023); beta 0 rules out none."""
    if beta == 0:
        return scores
    least = math.log(beta) + reference.max(dim=-1, keepdim=True).values
    return scores.masked_fill(reference < least, -math.inf)
