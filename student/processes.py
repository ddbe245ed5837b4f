"""Which of several processes this one is."""

import os
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Processes:
    """The processes of a run, as torchrun and accelerate tell them in the environment; one without these."""

    number: int
    rank: int

    @classmethod
    def of_environment(cls) -> "Processes":
        return cls(number=int(os.environ.get("WORLD_SIZE", "1")), rank=int(os.environ.get("RANK", "0")))

    @property
    def writes(self) -> bool:
        """Whether this one writes files, draws progress and prints reports."""
        return self.rank == 0
