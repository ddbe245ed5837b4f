"""Who computes shards: this process, processes beside it, or Ray's actors."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ..errors import SettingsError
from ..progress import Progress
from .cores import usable_cores
from .jobs import Clocks, ShardJob, Tell, WorkSettings
from .pool import WorkerOrder, run_workers
from .store.keyed import HashKey
from .store.writer import StoreWriter
from .teachers.forward import Teacher
from .teachers.recipe import TeacherRecipe
from .work import compute_shards

EngineName = Literal["local", "ray"]
_MOST_DECODERS = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Crew:
    """How many work, and where."""

    engine: EngineName = "local"
    workers: int = 1
    decode_workers: int | None = None
    """Threads of each worker that read and decode; `None`: its part of this machine's cores, at most 8."""

    def share_of_cores(self) -> int:
        """Cores of this machine for each worker, at least one."""
        return max(1, usable_cores() // self.workers)

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
        decode_workers = self.decode_workers or min(_MOST_DECODERS, self.share_of_cores())
        settings = WorkSettings(decode_workers=decode_workers, hash_key=hash_key)
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


def _absolute(job: ShardJob) -> ShardJob:
    """A job for a process that may run in another folder."""
    return replace(job, images=tuple(replace(source, path=source.path.absolute()) for source in job.images))
