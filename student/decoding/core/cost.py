"""Cost of answers. B samples, R rows."""

import torch
from jaxtyping import Bool, Int
from torch import Tensor


class Cost:
    """Counts the forward passes of the language model for each sample.

    One sequence in one forward pass counts 1: a prompt of any length counts 1, a step counts 1, and a step of five
    beams counts 5. Finished samples no longer count, although their rows still run in the batch.
    """

    def __init__(self, samples: int, device: torch.device) -> None:
        self.forwards: Int[Tensor, " batch"] = torch.zeros(samples, dtype=torch.long, device=device)
        self._open: Bool[Tensor, " batch"] = torch.ones(samples, dtype=torch.bool, device=device)

    @property
    def open(self) -> Bool[Tensor, " batch"]:
        """Which samples are not finished."""
        return self._open

    def charge(self, owner: Int[Tensor, " rows"]) -> None:
        """Count a forward pass in which each row belongs to the sample in `owner`."""
        self.forwards.index_add_(0, owner, self._open[owner].long())

    def keep_open(self, samples: Bool[Tensor, " batch"]) -> None:
        """Set which samples are not finished."""
        self._open = samples
