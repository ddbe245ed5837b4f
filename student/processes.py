"""Rank and number of processes of a run."""

import os
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Processes:
    """The processes of a run, from the environment variables of torchrun and accelerate; one process without them."""

    number: int
    rank: int
    local_rank: int
    """Rank among the processes on this machine."""

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
        """Whether this process writes files, shows progress and prints reports."""
        return self.rank == 0
