"""Who computes shards: this process, processes beside it, or Ray's actors."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch

from ...errors import SettingsError
from ...progress import Progress
from ..store.format.keyed_hashes import HashKey
from ..store.writing.writer import StoreWriter
from ..teachers.forward import Teacher
from ..teachers.recipe import TeacherRecipe
from .cores import usable_cores
from .messages import Clocks, DecodeIn, ShardJob, Tell, WorkSettings
from .pool import WorkerOrder, run_workers
from .shard_work import compute_shards

EngineName = Literal["local", "ray"]
_MOST_THREADS = 8
"""More threads of one interpreter do not decode faster."""

_FEW_CORES = 2
"""With these, threads decode as fast as processes and need less memory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Crew:
    """How many work, and where."""

    engine: EngineName = "local"
    workers: int = 1
    decode_workers: int | None = None
    """How many threads or processes of each worker read and decode; `None`: by its part of this machine's cores."""
    decode_in: DecodeIn | None = None
    """`None`: processes where the teacher has a device of its own and there are cores for them, else threads."""

    def share_of_cores(self) -> int:
        """Cores of this machine for each worker, at least one."""
        return max(1, usable_cores() // self.workers)

    def work_settings(self, device: str, hash_key: HashKey | None) -> WorkSettings:
        """What each worker needs beside teacher, store and shards, where teachers compute on `device`.

        On a CPU the teacher needs the cores, and threads start at once. A GPU is fed by processes, one for each core
        but one, which launches kernels and writes. Ray's nodes may have other cores than this machine, and one core
        for each GPU: threads, unless processes are asked for.
        """
        cores = self.share_of_cores()
        fed = device != "cpu" and self.engine == "local" and cores > _FEW_CORES
        decode_in = self.decode_in or ("processes" if fed else "threads")
        count = cores - 1 if decode_in == "processes" and device != "cpu" else min(_MOST_THREADS, cores)
        return WorkSettings(decode_workers=self.decode_workers or max(1, count), hash_key=hash_key, decode_in=decode_in)

    def loaded(self, teacher: Teacher | TeacherRecipe) -> Teacher:
        """The teacher in this process; where other processes compute, only to check its weights.

        Raises:
            SettingsError, InputError: see `load_teacher`.
        """
        if isinstance(teacher, Teacher):
            return teacher
        return teacher.load() if self._alone else teacher.checked()

    def run(
        self,
        teacher: Teacher | TeacherRecipe,
        loaded: Teacher,
        writer: StoreWriter,
        jobs: Sequence[ShardJob],
        hash_key: HashKey | None,
        tell: Tell,
        progress: Progress,
    ) -> list[Clocks]:
        """Compute and commit all jobs; returns each worker's clocks."""
        if not jobs:
            return []
        settings = self.work_settings(device_of(teacher), hash_key)
        if self._alone:
            return [compute_shards(loaded, writer, jobs, tell, settings)]
        if isinstance(teacher, Teacher):
            raise SettingsError("other processes load the teacher themselves: give a TeacherRecipe, not a Teacher")
        jobs = [_absolute(job) for job in jobs]
        order = WorkerOrder(store=writer.path.absolute(), recipe=teacher, settings=settings)
        workers = min(self.workers, len(jobs))
        if self.engine == "local":
            return run_workers(order, jobs, tell, workers)
        from .ray_engine import run_actors

        return run_actors(order, jobs, tell, workers, progress)

    @property
    def _alone(self) -> bool:
        return self.engine == "local" and self.workers == 1


def device_of(teacher: Teacher | TeacherRecipe) -> str:
    """The kind of device that a teacher computes on: `cpu`, `cuda`, `mps`."""
    return teacher.device.type if isinstance(teacher, Teacher) else torch.device(teacher.device).type


def _absolute(job: ShardJob) -> ShardJob:
    """A job for a process that may run in another folder."""
    return replace(job, images=tuple(replace(source, path=source.path.absolute()) for source in job.images))
