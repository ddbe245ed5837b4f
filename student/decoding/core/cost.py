"""What answers cost. B samples, R rows."""

import torch
from jaxtyping import Bool, Int
from torch import Tensor


class Cost:
    """Forward passes of the language model for each sample.

    One sequence through the language model is one pass: a prompt counts 1 however long it is, a step counts 1, five
    beams count 5. Samples that are answered count no more, though their rows still run beside the others.
    """

    def __init__(self, samples: int, device: torch.device) -> None:
        self.forwards: Int[Tensor, " batch"] = torch.zeros(samples, dtype=torch.long, device=device)
        self._open: Bool[Tensor, " batch"] = torch.ones(samples, dtype=torch.bool, device=device)

    @property
    def open(self) -> Bool[Tensor, " batch"]:
        """Which samples are still being answered."""
        return self._open

    def charge(self, owner: Int[Tensor, " rows"]) -> None:
        """A forward pass has run in which each row belongs to the sample named."""
        self.forwards.index_add_(0, owner, self._open[owner].long())

    def keep_open(self, samples: Bool[Tensor, " batch"]) -> None:
        """These are still being answered."""
        self._open = samples
