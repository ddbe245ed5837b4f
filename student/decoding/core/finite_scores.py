"""Recording whether logits and scores were finite. B samples, R rows, V tokens."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .cost import Cost


class FiniteWatch:
    """Records, on the device, which samples had non-finite logits or scores before they were finished.

    Nothing is copied to the host until the batch is finished, so no step waits.
    """

    def __init__(self, cost: Cost, samples: int, device: torch.device) -> None:
        self._cost = cost
        self._bad_logits: Int[Tensor, " batch"] = torch.zeros(samples, dtype=torch.long, device=device)
        self._bad_scores: Int[Tensor, " batch"] = torch.zeros(samples, dtype=torch.long, device=device)

    def see_logits(self, logits: Float[Tensor, "rows vocab"], owner: Int[Tensor, " rows"]) -> None:
        """Record the logits of a forward pass in which each row belongs to the sample in `owner`."""
        self._note(self._bad_logits, ~logits.isfinite().all(dim=-1), owner)

    def see_scores(self, scores: Float[Tensor, "rows vocab"], owner: Int[Tensor, " rows"]) -> None:
        """Record a method's scores, which are -inf for excluded tokens; at least one token must remain."""
        self._note(self._bad_scores, ~scores.amax(dim=-1).isfinite(), owner)

    def first(self) -> tuple[int, str] | None:
        """Return the first non-finite sample, and `logits` or `scores`; None if all were finite."""
        logits, scores = torch.stack([self._bad_logits, self._bad_scores]).tolist()
        for sample, counts in enumerate(zip(logits, scores, strict=True)):
            if any(counts):
                return sample, "logits" if counts[0] else "scores"
        return None

    def _note(self, counts: Tensor, bad: Bool[Tensor, " rows"], owner: Int[Tensor, " rows"]) -> None:
        counts.index_add_(0, owner, (bad & self._cost.open[owner]).long())
