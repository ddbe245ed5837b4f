"""Which of several processes this one is."""

import os
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Processes:
    """The processes of a run, as torchrun and accelerate tell them in the environment; one without these."""

    number: int
    rank: int
    local_rank: int
    """Which of the processes on this machine it is."""

    @classmethod
    def of_environment(cls) -> "Processes":
        rank = int(os.environ.get("RANK", "0"))
        return cls(
            number=int(os.environ.get("WORLD_SIZE", "1")),
            rank=rank,
            local_rank=int(os.environ.get("LOCAL_RANK", rank)),
        )

    @property
    def writes(self) -> bool:
        """Whether this one writes files, draws progress and prints reports."""
        return self.rank == 0
