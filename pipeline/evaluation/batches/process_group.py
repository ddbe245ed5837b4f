"""The processes that torchrun started for one command: they take batches in turn, and the first one writes results."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import distributed

from ....student.processes import Processes

Value = TypeVar("Value")

_PATIENCE = timedelta(days=7)
"""Timeout for waiting on other processes; torchrun stops all of them as soon as one fails."""


class Group:
    """One process, or a group of several."""

    def __init__(self, processes: Processes, store: Any = None) -> None:
        self.number, self.rank = processes.number, processes.rank
        self._store = store
        self._stage = 0

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def from_first(self, value: Value) -> Value:
        """Broadcast the first process's value."""
        if self.number == 1:
            return value
        values = [value]
        distributed.broadcast_object_list(values, src=0)
        self._stage += 1
        return values[0]

    def turns(self, count: int) -> Iterator[int]:
        """Numbers below `count`, each for one process, first come, first served. Call after `from_first`."""
        if self.number == 1:
            yield from range(count)
            return
        while (number := self._store.add(f"turn-{self._stage}", 1) - 1) < count:
            yield number

    def count(self, steps: int) -> int:
        """Add to the steps that all processes have done since `from_first`; return the sum."""
        return int(self._store.add(f"done-{self._stage}", steps)) if self.number > 1 else 0

    def wait(self) -> None:
        """Wait for all processes."""
        if self.number > 1:
            distributed.barrier()


@contextmanager
def joined_group() -> Iterator[Group]:
    """The group of torchrun processes, connected by gloo; a single process without torchrun."""
    processes = Processes.of_environment()
    if processes.number == 1:
        yield Group(processes)
        return
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    store, rank, number = next(iter(rendezvous("env://", timeout=_PATIENCE)))
    distributed.init_process_group(
        "gloo", store=PrefixStore("group", store), rank=rank, world_size=number, timeout=_PATIENCE
    )
    try:
        yield Group(processes, PrefixStore("batches", store))
    finally:
        distributed.destroy_process_group()


def local_device(device: str) -> str:
    """`cuda` becomes this process's own GPU if torchrun started several on this machine; others are unchanged."""
    number = os.environ.get("LOCAL_RANK")
    if device != "cuda" or number is None or Processes.of_environment().number == 1:
        return device
    return f"cuda:{int(number) % max(1, torch.cuda.device_count())}"


def local_processes() -> int:
    """Processes of this command on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if Processes.of_environment().number > 1 else 1
