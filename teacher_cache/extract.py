"""Stage one: the teacher runs once over every image and what it says goes to a store."""

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

import torch

from ..errors import InputError, SettingsError, StoreError
from ..progress import Progress, Silent
from .crew import Crew, EngineName
from .geometry import Geometry, PatchGrid
from .plan import StoreWishes, assign_images, check_continuation, distinct_sources, new_header, shard_jobs
from .prefetch import ImageSource
from .report import ExtractionReport, Tally, finished_outcome, shares, task_outcome
from .store.adopting import side_of
from .store.files import PARTIAL_SUFFIX
from .store.format import MANIFEST_FILE, DataUse
from .store.keyed import HashKey, hashing_of, naming
from .store.ledger import committed_shards
from .store.locks import RunLock
from .store.metadata import read_header
from .store.profiles import Profile
from .store.writer import StoreWriter, shard_keys
from .task import Task
from .teachers.forward import Teacher
from .teachers.recipe import TeacherRecipe

__all__ = ["ExtractionReport", "ImageSource", "Task", "TeacherRecipe", "extract", "finish"]


def extract(
    teacher: Teacher | TeacherRecipe,
    images: Sequence[ImageSource],
    out: Path,
    *,
    grid: PatchGrid,
    geometry: Geometry = "pad",
    profile: Profile | None = None,
    tolerance: float | None = None,
    batch_size: int | None = None,
    threads: int | None = None,
    shard_rows: int | None = None,
    data_use: DataUse = "private",
    title: str | None = None,
    licence: str | None = None,
    hash_key: HashKey | None = None,
    unreadable: Sequence[str] = (),
    resume: bool = False,
    task: Task | None = None,
    engine: EngineName = "local",
    workers: int = 1,
    decode_workers: int | None = None,
    progress: Progress | None = None,
) -> ExtractionReport:
    """Write the teacher's E_v and E_a of every distinct image to a store at `out`, for reading on `grid`.

    Images that cannot be read or decoded, or whose bytes are no longer those that were hashed, get no row
    and a reason in failures.parquet; `unreadable` are the reasons of files that have no hash. With `resume`,
    committed shards of an earlier run are kept, and what is `None` here is as that run had it. With `task`,
    only its part of the shards is computed, of a store that the first of the tasks creates and `finish` closes.
    With a `hash_key` the store knows images by their keyed hashes.

    A shard in which a row's max |dS| is above `tolerance` is stored in a wider profile. Bits do not depend on
    the number of workers, but on `batch_size` and, on a CPU, on `threads` (of each worker; by default the
    cores, divided by the workers of the first run).

    Raises:
        InputError: there are no images, or some that the store was planned for are missing.
        StoreError: `out` exists without `resume`, was begun with other settings, is being written by another
            run, it cannot be written, the disk is full, or a worker died.
        SettingsError: a batch does not fit into the device's memory, or an engine cannot be had.
    """
    wishes = StoreWishes(
        grid=grid,
        geometry=geometry,
        hashing=hashing_of(hash_key),
        data_use=data_use,
        profile=profile,
        tolerance=tolerance,
        batch_size=batch_size,
        threads=threads,
        shard_rows=shard_rows,
        title=title,
        licence=licence,
    )
    run = StoreRun(
        teacher, out, wishes, Crew(engine=engine, workers=workers, decode_workers=decode_workers), hash_key, progress
    )
    with run.errors():
        _check_not_half_extended(out)
        run.begin(images, unreadable, may_exist=resume or task is not None)
        return run.fill(images, task)


def finish(out: Path) -> str:
    """Close a store whose shards are all committed; returns its root digest. Doing it again changes nothing.

    Raises:
        StoreError: shards are missing, or a run is still writing.
    """
    read_header(out)
    with RunLock(out):
        writer = StoreWriter(out)
        missing = writer.pending()
        if missing:
            shown = ", ".join(map(str, missing[:20])) + (", ..." if len(missing) > 20 else "")
            raise StoreError(
                f"{out} is unfinished: {len(missing)} of {writer.header.shards} shards are missing: {shown}. Shard S "
                "is of the --task with number S modulo the number of tasks: repeat those, then "
                f"`medalign teacher finish {out}`"
            )
        return writer.finish()


class StoreRun:
    """One run of a crew on one store."""

    def __init__(
        self,
        teacher: Teacher | TeacherRecipe,
        out: Path,
        wishes: StoreWishes,
        crew: Crew,
        hash_key: HashKey | None,
        progress: Progress | None,
    ) -> None:
        self._started = perf_counter()
        self._teacher, self._out, self._wishes, self._crew, self._hash_key = teacher, out, wishes, crew, hash_key
        self._progress = progress or Silent()
        self.name = naming(hash_key)
        """From the plain hash of an image to the one that the store knows it by."""
        self._loaded = crew.loaded(teacher)

    def begin(self, images: Sequence[ImageSource], unreadable: Sequence[str], *, may_exist: bool) -> None:
        """Create the store, or hold that the one there may be continued by this run."""
        sources = distinct_sources(images)
        if not sources:
            raise InputError("there are no images to extract")
        if not (may_exist and self._out.exists()):
            hashes = [self.name(source.image_hash) for source in sources]
            header = new_header(self._loaded, hashes, self._wishes, self._crew.share_of_cores())
            try:
                StoreWriter.create(self._out, header, hashes, unreadable)
            except StoreError:
                if not (may_exist and self._out.exists()):  # else another task was faster
                    raise
        self.check(self._out)

    def check(self, store: Path) -> None:
        """Hold that this run has the settings of a store."""
        check_continuation(store, read_header(store), self._loaded, self._wishes)

    def fill(self, images: Sequence[ImageSource], task: Task | None = None) -> ExtractionReport:
        """Compute what is missing of the store, or of a task's part; close the store unless it is a task."""
        sources = distinct_sources(images)
        shards = task.shards(read_header(self._out).shards) if task else None
        with RunLock(self._out, shards):
            writer = StoreWriter(self._out)
            wanted = range(writer.header.shards) if shards is None else shards
            by_row, unplanned = assign_images(self._out, writer.header, sources, self.name)
            if unplanned:
                self._progress.note(
                    f"{unplanned} images are not in the plan of {self._out} and are left out: "
                    "`medalign teacher extend` adds them"
                )
            torn = _torn_shards(writer, wanted)
            pending = writer.pending(wanted)
            jobs = shard_jobs(writer.header, pending, by_row)
            done = sum(len(job.images) for job in jobs)
            self._progress.start("extracting teacher targets", done)
            tally = Tally(self._progress)
            clocks = self._crew.run(
                self._teacher, self._loaded, writer, jobs, self._hash_key, tally.tell, self._progress
            )
            root = None if task else writer.finish()
        if task and len(committed_shards(self._out)) == writer.header.shards:
            self._progress.note(f"all shards are committed: `medalign teacher finish {self._out}` closes the store")
        held = task_outcome(self._out, wanted) if task else finished_outcome(self._out)
        return ExtractionReport(
            out=self._out,
            images=sum(len(writer.header.shard_range(shard)) for shard in wanted),
            failures=held.failures,
            unreadable=held.unreadable,
            profiles=held.profiles,
            bytes=held.bytes,
            root_sha256=root,
            narrow_images=tally.narrow_images,
            shards_done=tally.shards_done,
            shards_reused=len(wanted) - len(pending),
            shards_redone=torn,
            images_done=done,
            workers=len(clocks),
            seconds=perf_counter() - self._started,
            **shares(clocks),
        )

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turn what can go wrong into errors that say what is kept and how to go on."""
        try:
            yield
        except OSError as error:
            raise self._cannot_write(error) from error
        except torch.OutOfMemoryError as error:
            size = read_header(self._out).batch_size
            raise SettingsError(
                f"a batch of {size} images does not fit into the device's memory. A store keeps its batch size: remove "
                f"{self._out} and repeat the command with --batch-size {max(1, size // 2)}"
            ) from error
        except KeyboardInterrupt:
            self._progress.note(f"stopped; {self._kept()} are kept, --resume continues from there")
            raise

    def _cannot_write(self, error: OSError) -> StoreError:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            return StoreError(f"cannot write to {self._out}: {error}")
        return StoreError(
            f"the disk of {self._out} is full. {self._kept()} are committed and kept: free some space, then repeat "
            "the command (`extract` with --resume)"
        )

    def _kept(self) -> str:
        try:
            return f"{len(committed_shards(self._out))} of {read_header(self._out).shards} shards"
        except StoreError:
            return "no shards"


def _torn_shards(writer: StoreWriter, shards: Sequence[int]) -> int:
    """Shards that an earlier run was writing when it was killed."""
    files = [[writer.path / f"{key}{PARTIAL_SUFFIX}" for key in shard_keys(writer.header, shard)] for shard in shards]
    return sum(any(file.exists() for file in group) for group in files)


def _check_not_half_extended(out: Path) -> None:
    if side_of(out).exists() and not (out / MANIFEST_FILE).is_file():
        raise StoreError(
            f"{out} was being extended, and that was interrupted: repeat the `medalign teacher extend` to complete it"
        )
