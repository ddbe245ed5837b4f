"""Next-token scores from one or more branches, for searches. R rows, V tokens."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from ....errors import InputError
from .branch import Branch

Combine = Callable[[int, Sequence[Tensor]], Tensor]
"""Maps the number of the next token (the first is 1) and each branch's logits [R, V] to scores [R, V]:
log-probabilities up to a constant, -inf for excluded tokens."""


@runtime_checkable
class Scorer(Protocol):
    def start(self) -> Float[Tensor, "rows vocab"]:
        """Scores of the first token, one row per sample."""
        ...

    def advance(self, tokens: Int[Tensor, " rows"]) -> Float[Tensor, "rows vocab"]:
        """Append a token to each row and return the scores of the next."""
        ...

    def select(self, rows: Int[Tensor, " selected"]) -> None:
        """Keep these rows, in this order; rows can be repeated."""
        ...


class Branches:
    """Branches that get the same tokens, and a function from their logits to scores; by default the first logits."""

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
        scores = check_scores(self._combine(self._number, logits), logits[0].shape, self._combine)
        self.branches[0].watch.see_scores(scores, self.branches[0].owner)
        return scores


def check_scores(found: Any, shape: Sequence[int], source: Callable[..., Any]) -> Float[Tensor, "rows vocab"]:
    """Check what `source`, which users write, returned as scores; by shape and type alone, so no step waits.

    Raises:
        InputError: it is not a tensor of real numbers with this shape, which would be broadcast and give wrong answers.
    """
    if not isinstance(found, Tensor):
        what = f"an object of type {type(found).__name__}"
    elif found.shape != tuple(shape):
        what = f"a tensor of shape {list(found.shape)}"
    elif not found.is_floating_point():
        what = f"a tensor of type {str(found.dtype).removeprefix('torch.')}"
    else:
        return found
    raise InputError(
        f"{function_name(source)} returned {what}, but should return scores: a tensor of "
        f"floating-point numbers of shape {list(shape)}, one row for each row of logits and one column for each token. "
        "Correct it (docs/how-to/own-decoding.md)"
    )


def function_name(function: Any) -> str:
    """Name and module of what users pass as a function, which may be any object that can be called."""
    name = getattr(function, "__qualname__", None)
    return repr(function) if name is None else f"`{name}` in {function.__module__}"


def contrast(
    positive: Float[Tensor, "rows vocab"], negative: Float[Tensor, "rows vocab"], alpha: float
) -> Float[Tensor, "rows vocab"]:
    """(1 + alpha) positive - alpha negative."""
    return (1 + alpha) * positive - alpha * negative


def only_plausible(
    scores: Float[Tensor, "rows vocab"], reference: Float[Tensor, "rows vocab"], beta: float
) -> Float[Tensor, "rows vocab"]:
    """Exclude tokens less than beta times as likely as the most likely token in `reference` (log-probabilities up to a
    constant; the adaptive plausibility constraint of contrastive decoding, Li et al. 2023); beta 0 excludes none."""
    if beta == 0:
        return scores
    least = math.log(beta) + reference.max(dim=-1, keepdim=True).values
    return scores.masked_fill(reference < least, -math.inf)
