"""Who does the missing batches: this process, workers beside it, Ray's actors, the processes of torchrun, a task."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ....errors import InputError, MedalignError, SettingsError, StoreError
from ....progress import Progress
from ....student.loading.student_loading import Student
from ....teacher_cache.store.filesystem.locks import RunLock
from ....teacher_cache.workers.cores import usable_cores
from ....teacher_cache.workers.engines import EngineName
from ....teacher_cache.workers.task import Task, parse_task
from .batch_work import BatchJob, BatchOrder, BatchResult, work_through
from .environment import code_versions
from .process_group import Group, local_processes


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkRequest:
    """Who shall compute, and which part."""

    engine: EngineName = "local"
    workers: int = 1
    threads: int | None = None
    """Of each process's arithmetic on a CPU; `None`: as the run in the folder has it, else cores / processes."""
    task: str | None = None
    """`I/N`: the I-th of N runs, counted from 0."""
    finish: bool = False
    """Join what all tasks have done."""

    @property
    def part(self) -> Task | None:
        """The task.

        Raises:
            SettingsError: it is none, or stands beside `finish`.
        """
        if self.task is not None and self.finish:
            raise SettingsError("--task does a part and --finish joins all parts: give one of them")
        return parse_task(self.task)

    @property
    def may_exist(self) -> bool:
        """Whether the run's folder may have been begun by another task."""
        return self.task is not None or self.finish

    @property
    def is_alone(self) -> bool:
        return self.engine == "local" and self.workers == 1

    def unused(self) -> list[str]:
        """The options that only matter to what computes, of those that were given."""
        given = {
            "--workers": self.workers > 1,
            "--engine": self.engine != "local",
            "--threads": self.threads is not None,
        }
        return [name for name, is_given in given.items() if is_given]

    def check(self, group: Group) -> None:
        """Check that the options go together.

        Raises:
            SettingsError: they do not.
        """
        _ = self.part
        unused = self.unused()
        if self.finish and unused:
            raise SettingsError(
                f"--finish joins what tasks have done and computes nothing: leave out {' and '.join(unused)}"
            )
        if group.number > 1 and not self.is_alone:
            raise SettingsError(
                f"torchrun started {group.number} processes, which share the work already: leave out --workers and "
                "--engine, or start without torchrun"
            )
        if group.number > 1 and self.finish:
            raise SettingsError("--finish loads no student and needs one process: start it without torchrun")

    def threads_on(self, device: str) -> int | None:
        """Threads that decide the last bits of answers on a CPU; `None` on any other device.

        Raises:
            SettingsError: they were given, and the device is another.
        """
        if not device.startswith("cpu"):
            if self.threads is not None:
                raise SettingsError(
                    f"--threads {self.threads} is for a CPU, and the device is {device!r}: leave it out"
                )
            return None
        if self.threads is not None:
            return self.threads
        processes = max(self.workers, local_processes())
        return torch.get_num_threads() if processes == 1 else max(1, usable_cores() // processes)


ALONE = WorkRequest()


def do_missing(
    order: BatchOrder,
    missing: Sequence[BatchJob],
    keep: Callable[[BatchResult], None],
    work: WorkRequest,
    group: Group,
    progress: Progress,
    *,
    label: str,
    load: Callable[[int], Student] | None = None,
) -> None:
    """Do this run's share of the missing batches; `keep` gets every result that this process is to store.

    Under torchrun all processes call this, with the missing batches that the first one found.

    Raises:
        SettingsError: Ray is not installed, or the cluster has too few CPUs or GPUs.
        InputError: a question fails, or workers cannot see the files.
        MedalignError: a worker died; what it finished is kept.
    """
    missing = group.from_first(missing)
    if not missing:
        return
    progress.start(label, sum(len(order.samples_of(job)) for job in missing))
    shown = 0

    def kept(result: BatchResult) -> None:
        nonlocal shown
        keep(result)
        done = len(result.results)
        total = group.count(done) if group.number > 1 else shown + done
        progress.advance(total - shown)
        shown = total

    order = replace(order, share=_share(work.part, group))
    if work.is_alone:
        jobs = (missing[number] for number in group.turns(len(missing)))
        work_through(order, jobs, load or (lambda number: order.students[number].load()), kept)
        return
    from ....teacher_cache.workers.pool import run_workers
    from ....teacher_cache.workers.ray_engine import run_actors

    order = _for_others(order)
    workers = min(work.workers, len(missing))
    try:
        if work.engine == "local":
            run_workers(order, missing, kept, workers)
        else:
            run_actors(order, list(missing), kept, workers, progress)
    except StoreError as error:  # a worker died, or does not see the files: no store is at fault here
        raise MedalignError(str(error)) from error


def _for_others(order: BatchOrder) -> BatchOrder:
    """An order for processes that may run in another folder, with the versions that they must have."""
    samples = {
        name: tuple(
            replace(sample, images=tuple(replace(image, path=image.path.absolute()) for image in sample.images))
            for sample in asked
        )
        for name, asked in order.samples.items()
    }
    students = tuple(student.absolute() for student in order.students)
    return replace(order, samples=samples, students=students, versions=dict(code_versions()))


def _share(task: Task | None, group: Group) -> tuple[int, int]:
    number, count = (0, 1) if task is None else (task.number, task.count)
    return number + count * group.rank, count * group.number


def jobs_of(order: BatchOrder, task: Task | None) -> list[BatchJob]:
    """All batches, or those of a task: every N-th."""
    jobs = order.jobs()
    return jobs if task is None else [jobs[number] for number in task.shards(len(jobs))]


@contextmanager
def run_lock(out: Path, task: Task | None, group: Group) -> Iterator[None]:
    """Held while a run works in a folder; tasks of one array live side by side.

    Raises:
        InputError: another run, or the same task, is at work there.
    """
    if not group.is_first:
        yield
        return
    lock = RunLock(out, None if task is None else [task.number])
    try:
        lock.__enter__()
    except StoreError as error:
        raise InputError(str(error)) from error
    try:
        yield
    finally:
        lock.__exit__(None, None, None)
