"""Work on batches, the same in every engine: load a student, read images one batch ahead, ask, and return results.

A batch is a fixed sequence of consecutive questions, regardless of which process answers it. Padding and rounding
depend on the content of a batch, so answers do not depend on the number of processes. Batches are ordered by student,
so each process loads a student once.
"""

import gc
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

import torch
from torch import Tensor

from ....choices import DtypeChoice
from ....errors import InputError
from ....student.decoding.generation import check_length
from ....student.folders.student_facts import StudentFacts, read_facts
from ....student.inputs.collation import Pixels, Sample, encode_text, read_shown
from ....student.loading.student_loading import Student, load_student
from ....teacher_cache.store import TeacherStore
from ....teacher_cache.workers.cores import arithmetic_threads, usable_cores
from .environment import code_versions, device_name, differing

_MOST_READERS = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class StudentRecipe:
    """How to load a student, as a value that can be sent to other processes and machines."""

    folder: Path
    adapter: Path | None = None
    device: str = "cpu"
    dtype: DtypeChoice = "auto"
    template: str | None = None
    keep_lora_apart: bool = False
    features: TeacherStore | None = None
    """Store of an adapter that projects the teacher's features."""

    def load(self) -> Student:
        """Load the student in this process.

        Raises:
            InputError: It cannot be read.
            SettingsError: The template does not exist.
        """
        return load_student(
            self.folder,
            adapter=self.adapter,
            device=self.device,
            dtype=self.dtype,
            template=self.template,
            keep_lora_apart=self.keep_lora_apart,
            features=self.features,
        )

    def facts(self) -> StudentFacts:
        """What determines its answers, without loading it.

        Raises:
            InputError: It cannot be read.
        """
        return read_facts(
            self.folder,
            self.adapter,
            dtype=self.dtype,
            template=self.template,
            keep_lora_apart=self.keep_lora_apart,
            features=self.features,
        )

    def absolute(self) -> "StudentRecipe":
        """The recipe with absolute paths, for a process in another folder."""
        adapter = None if self.adapter is None else self.adapter.absolute()
        return replace(self, folder=self.folder.absolute(), adapter=adapter)


class Ask(Protocol):
    """The computation on a batch."""

    @property
    def max_new_tokens(self) -> int:
        """Largest number of tokens added to a prompt."""

    def __call__(self, student: Student, samples: Sequence[Sample], pixels: Sequence[Pixels]) -> Sequence[Any]:
        """One result per sample."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One evaluation: a student, questions, and the computation."""

    student: int
    """Index in the order's students."""
    questions: str
    """Key of the order's samples."""
    ask: Ask


@dataclass(frozen=True, slots=True)
class BatchJob:
    """One batch of a cell."""

    cell: int
    batch: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Conditions:
    """Conditions of results."""

    versions: Mapping[str, str]
    device: str
    lora_kept: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchResult:
    """The results of a batch, one per sample."""

    job: BatchJob
    results: Sequence[Any]
    seconds: float
    conditions: Conditions


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchOrder:
    """An `Order` (teacher_cache/workers/pool.py) for batches."""

    students: tuple[StudentRecipe, ...]
    cells: tuple[Cell, ...]
    samples: Mapping[str, tuple[Sample, ...]]
    batch_size: int
    threads: int | None = None
    """CPU threads per process; `None`: torch's default."""
    versions: Mapping[str, str] | None = None
    """Versions in the process that created the order; every worker must have the same."""
    share: tuple[int, int] = (0, 1)
    """(n, N): this process checks the lengths of the n-th of N parts of the questions before it starts."""

    def batches(self, cell: int) -> int:
        return -(-len(self.samples[self.cells[cell].questions]) // self.batch_size)

    def jobs(self) -> list[BatchJob]:
        """All batches, student by student; the index of a batch is its number, by which tasks divide the work."""
        return [BatchJob(cell, batch) for cell in range(len(self.cells)) for batch in range(self.batches(cell))]

    def samples_of(self, job: BatchJob) -> tuple[Sample, ...]:
        first = job.batch * self.batch_size
        return self.samples[self.cells[job.cell].questions][first : first + self.batch_size]

    # The interface for worker pools.

    @property
    def kept(self) -> str:
        return "finished batches are kept; run the same command with --resume to continue"

    @property
    def writes(self) -> Path | None:
        return None

    @property
    def has_processes(self) -> bool:
        return False

    def for_worker(self, number: int) -> "BatchOrder":
        gpus = max(1, torch.cuda.device_count())
        students = tuple(
            replace(student, device=f"cuda:{number % gpus}") if student.device == "cuda" else student
            for student in self.students
        )
        return replace(self, students=students)

    def needs(self) -> dict[str, int]:
        if self.students[0].device.startswith("cuda"):
            return {"num_gpus": 1, "num_cpus": 1}
        return {"num_cpus": self.threads or 1}

    def files(self, jobs: Sequence[BatchJob]) -> list[Path]:
        images = [image.path for job in jobs[:1] for sample in self.samples_of(job) for image in sample.images]
        return [*images, *(student.folder for student in self.students)]

    def work(self, jobs: Iterable[BatchJob], tell: Callable[[BatchResult], None]) -> None:
        """Do the jobs in this process.

        Raises:
            InputError: This process has other versions than the one that created the order, or a question fails.
        """
        wrong = differing(self.versions or code_versions(), code_versions())
        if wrong:
            raise InputError(
                f"this worker has different versions from the process that started it: {wrong}. Its answers could "
                "differ: install the same versions on all machines"
            )
        work_through(self, jobs, lambda number: self.students[number].load(), tell)


def work_through(
    order: BatchOrder,
    jobs: Iterable[BatchJob],
    load: Callable[[int], Student],
    tell: Callable[[BatchResult], None],
) -> None:
    """Do jobs in order; `load` returns a student by its number, and is called again when the student changes."""
    threads = nullcontext() if order.threads is None else arithmetic_threads(order.threads)
    readers = ThreadPoolExecutor(min(_MOST_READERS, usable_cores()), thread_name_prefix="medalign-read")
    try:
        with threads:
            _Work(order, load, tell, readers).go(iter(jobs))
    finally:
        readers.shutdown(cancel_futures=True)


class _Work:
    """The loop over batches; the images of the next batch are read during the current one."""

    def __init__(
        self,
        order: BatchOrder,
        load: Callable[[int], Student],
        tell: Callable[[BatchResult], None],
        readers: ThreadPoolExecutor,
    ) -> None:
        self._order, self._load, self._tell, self._readers = order, load, tell, readers
        self._number: int | None = None
        self._student: Student | None = None
        self._conditions: Conditions | None = None

    def go(self, jobs: Iterator[BatchJob]) -> None:
        job, pixels = next(jobs, None), None
        while job is not None:
            student = self._student_of(job)
            pixels = pixels or self._read(student, job)
            following = next(jobs, None)
            is_same = following is not None and self._order.cells[following.cell].student == self._number
            ahead = self._read(student, following) if following is not None and is_same else None
            self._do(student, job, pixels)
            job, pixels = following, ahead

    def _read(self, student: Student, job: BatchJob) -> list[Future[Tensor | None]]:
        return [self._readers.submit(read_shown, student, sample) for sample in self._order.samples_of(job)]

    def _do(self, student: Student, job: BatchJob, pixels: list[Future[Tensor | None]]) -> None:
        assert self._conditions is not None
        started = perf_counter()
        samples = self._order.samples_of(job)
        results = self._order.cells[job.cell].ask(student, samples, [future.result for future in pixels])
        seconds = perf_counter() - started
        self._tell(BatchResult(job=job, results=results, seconds=seconds, conditions=self._conditions))

    def _student_of(self, job: BatchJob) -> Student:
        number = self._order.cells[job.cell].student
        if self._student is None or number != self._number:
            if self._student is not None:
                self._student = None
                gc.collect()  # free its memory before loading the next one
            self._student, self._number = self._load(number), number
            self._conditions = Conditions(
                versions=code_versions(),
                device=device_name(self._student.model.device),
                lora_kept=self._student.lora_kept,
            )
            self._check_lengths(self._student, number)
        return self._student

    def _check_lengths(self, student: Student, number: int) -> None:
        """Check this process's part of the student's questions before answering the first.

        Raises:
            InputError: A prompt and its longest answer exceed the student's positions.
        """
        place, count = self._order.share
        cells = [cell for cell in self._order.cells if cell.student == number]
        for name in dict.fromkeys(cell.questions for cell in cells):
            longest = max(cell.ask.max_new_tokens for cell in cells if cell.questions == name)
            for sample in self._order.samples[name][place::count]:
                check_length(student, sample, len(encode_text(student, sample, with_answer=False)[0]), longest)
