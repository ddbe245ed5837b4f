"""Distribute missing batches: to this process, worker processes, Ray actors, torchrun processes, or one task."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ....choices import EngineName
from ....errors import InputError, MedalignError, SettingsError, StoreError
from ....progress import Progress
from ....student.loading.student_loading import Student
from ....teacher_cache.store.filesystem.locks import RunLock
from ....teacher_cache.workers.cores import usable_cores
from ....teacher_cache.workers.task import Task, parse_task
from .batch_work import BatchJob, BatchOrder, BatchResult, work_through
from .environment import code_versions
from .process_group import Group, local_processes


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkRequest:
    """The processes of a run, and which part it computes."""

    engine: EngineName = "local"
    workers: int = 1
    threads: int | None = None
    """CPU threads per process; `None`: that of the run in the folder, else cores / processes."""
    task: str | None = None
    """`I/N`: part I of N, counted from 0."""
    finish: bool = False
    """Join the parts of all tasks."""

    @property
    def part(self) -> Task | None:
        """The task.

        Raises:
            SettingsError: It is invalid, or `finish` is set too.
        """
        if self.task is not None and self.finish:
            raise SettingsError("--task and --finish are incompatible: pass only one of them")
        return parse_task(self.task)

    @property
    def may_exist(self) -> bool:
        """Whether another task may have created the run's folder."""
        return self.task is not None or self.finish

    @property
    def is_alone(self) -> bool:
        return self.engine == "local" and self.workers == 1

    def unused(self) -> list[str]:
        """The given options that only affect computation."""
        given = {
            "--workers": self.workers > 1,
            "--engine": self.engine != "local",
            "--threads": self.threads is not None,
        }
        return [name for name, is_given in given.items() if is_given]

    def check(self, group: Group) -> None:
        """Check that the options are compatible.

        Raises:
            SettingsError: They are not.
        """
        _ = self.part
        unused = self.unused()
        if self.finish and unused:
            raise SettingsError(f"--finish joins the parts of tasks and computes nothing: omit {' and '.join(unused)}")
        if group.number > 1 and not self.is_alone:
            raise SettingsError(
                f"torchrun started {group.number} processes, which already share the work: omit --workers and "
                "--engine, or start without torchrun"
            )
        if group.number > 1 and self.finish:
            raise SettingsError("--finish needs only one process: start it without torchrun")

    def threads_on(self, device: str) -> int | None:
        """The number of CPU threads, which affects rounding; `None` on other devices.

        Raises:
            SettingsError: Threads were given for another device.
        """
        if not device.startswith("cpu"):
            if self.threads is not None:
                raise SettingsError(
                    f"--threads {self.threads} only applies to a CPU, but the device is {device!r}: omit it"
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
    """Compute this run's part of the missing batches; `keep` is called with every result to store.

    Under torchrun all processes call this, with the missing batches found by the first one.

    Raises:
        SettingsError: Ray is not installed, or the cluster has too few CPUs or GPUs.
        InputError: A question fails, or workers cannot read the files.
        MedalignError: A worker died; its finished batches are kept.
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
    except StoreError as error:  # a worker died or cannot read the files; not a problem with a store
        raise MedalignError(str(error)) from error


def _for_others(order: BatchOrder) -> BatchOrder:
    """The order for other processes, with absolute paths and the required versions."""
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
    """All batches, or those of a task (every N-th)."""
    jobs = order.jobs()
    return jobs if task is None else [jobs[number] for number in task.shards(len(jobs))]


@contextmanager
def run_lock(out: Path, task: Task | None, group: Group) -> Iterator[None]:
    """A lock on the folder of a run; different tasks of one array can run at the same time.

    Raises:
        InputError: Another run, or the same task, is using the folder.
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
