"""Whether everything that answers were chosen by was finite. B samples, R rows, V tokens."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .cost import Cost


class FiniteWatch:
    """Remembers, on the device, which samples had logits or scores that are not finite while they were answered.

    Nothing is read back until the batch is answered, so that no step waits for it.
    """

    def __init__(self, cost: Cost, samples: int, device: torch.device) -> None:
        self._cost = cost
        self._bad_logits: Int[Tensor, " batch"] = torch.zeros(samples, dtype=torch.long, device=device)
        self._bad_scores: Int[Tensor, " batch"] = torch.zeros(samples, dtype=torch.long, device=device)

    def see_logits(self, logits: Float[Tensor, "rows vocab"], owner: Int[Tensor, " rows"]) -> None:
        """Logits of a forward pass in which each row belongs to the sample named."""
        self._note(self._bad_logits, ~logits.isfinite().all(dim=-1), owner)

    def see_scores(self, scores: Float[Tensor, "rows vocab"], owner: Int[Tensor, " rows"]) -> None:
        """What a method makes of the logits, -inf where a token is ruled out: some token must be left."""
        self._note(self._bad_scores, ~scores.amax(dim=-1).isfinite(), owner)

    def first(self) -> tuple[int, str] | None:
        """The first sample that was not finite, and what of it (`logits`, `scores`); None: all were."""
        logits, scores = torch.stack([self._bad_logits, self._bad_scores]).tolist()
        for sample, counts in enumerate(zip(logits, scores, strict=True)):
            if any(counts):
                return sample, "logits" if counts[0] else "scores"
        return None

    def _note(self, found: Tensor, bad: Bool[Tensor, " rows"], owner: Int[Tensor, " rows"]) -> None:
        found.index_add_(0, owner, (bad & self._cost.open[owner]).long())
