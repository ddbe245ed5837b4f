"""Where shards are computed: in this process, in local worker processes, or in Ray actors."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from ...choices import EngineName
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

_MOST_THREADS = 8
"""More threads of one interpreter do not speed up decoding."""

_FEW_CORES = 2
"""With so few cores, threads decode as fast as processes and need less memory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Crew:
    """Number and kind of the workers."""

    engine: EngineName = "local"
    workers: int = 1
    decode_workers: int | None = None
    """Decoding threads or processes per worker; `None`: depends on its share of this machine's cores."""
    decode_in: DecodeIn | None = None
    """`None`: processes if the teacher runs on a GPU and there are enough cores, otherwise threads."""

    def share_of_cores(self) -> int:
        """Cores of this machine per worker, at least one."""
        return max(1, usable_cores() // self.workers)

    def work_settings(self, device: str, hash_key: HashKey | None) -> WorkSettings:
        """Settings of each worker for teachers on `device`.

        On a CPU, the teacher needs the cores, and threads start immediately. A GPU is fed by one process per core,
        except for one core that launches kernels and writes. Ray nodes may have a different number of cores than this
        machine, and reserve one core per GPU, so they use threads unless `decode_in` says otherwise.
        """
        cores = self.share_of_cores()
        feeds_gpu = device != "cpu" and self.engine == "local" and cores > _FEW_CORES
        decode_in = self.decode_in or ("processes" if feeds_gpu else "threads")
        count = cores - 1 if decode_in == "processes" and device != "cpu" else min(_MOST_THREADS, cores)
        return WorkSettings(decode_workers=self.decode_workers or max(1, count), hash_key=hash_key, decode_in=decode_in)

    def loaded(self, teacher: Teacher | TeacherRecipe) -> Teacher:
        """Load the teacher in this process; if other processes compute, only to check its weights.

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
        """Compute and commit all jobs; returns the timings of each worker."""
        if not jobs:
            return []
        settings = self.work_settings(device_of(teacher), hash_key)
        if self._alone:
            return [compute_shards(loaded, writer, jobs, tell, settings)]
        if isinstance(teacher, Teacher):
            raise SettingsError("worker processes load the teacher themselves: pass a TeacherRecipe, not a Teacher")
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
    """Type of a teacher's device: `cpu`, `cuda` or `mps`."""
    return teacher.device.type if isinstance(teacher, Teacher) else torch.device(teacher.device).type


def _absolute(job: ShardJob) -> ShardJob:
    """The job with absolute paths, for a process that may have another working directory."""
    return replace(job, images=tuple(replace(source, path=source.path.absolute()) for source in job.images))
