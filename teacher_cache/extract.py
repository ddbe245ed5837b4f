"""Stage one: the teacher runs once over every image and what it says goes to a store."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

import torch

from ..atomic import leftover_notes
from ..errors import InputError, SettingsError, StoreError
from ..progress import Progress, Silent
from .crew import Crew, EngineName, device_of
from .geometry import Geometry, PatchGrid
from .jobs import DecodeIn
from .plan import (
    StoreWishes,
    assign_images,
    check_continuation,
    default_batch_size,
    distinct_sources,
    new_header,
    shard_jobs,
)
from .prefetch import ImageSource
from .report import ExtractionReport, Tally, finished_outcome, shares, task_outcome
from .squares import JpegScale
from .store.adopting import side_of
from .store.file_names import MANIFEST_FILE
from .store.files import leftovers
from .store.format import DataUse
from .store.keyed import HashKey, hashing_of, naming
from .store.ledger import committed_shards
from .store.locks import RunLock
from .store.metadata import read_header
from .store.profiles import Profile
from .store.roots import version_note
from .store.signature import is_signed, removed_note
from .store.trouble import accessing, store_error
from .store.unaltered import require_signed_state
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
    jpeg_scale: JpegScale | None = None,
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
    decode_in: DecodeIn | None = None,
    progress: Progress | None = None,
) -> ExtractionReport:
    """Write the teacher's E_v and E_a of every distinct image to a store at `out`, for reading on `grid`.

    Images that cannot be read or decoded, or whose bytes are no longer those that were hashed, get no row
    and a reason in failures.parquet; `unreadable` are the reasons of files that have no hash. With `resume`,
    committed shards of an earlier run are kept, and what is `None` here is as that run had it. With `task`,
    only its part of the shards is computed, of a store that the first of the tasks creates and `finish` closes.
    With a `hash_key` the store knows images by their keyed hashes.

    With `jpeg_scale="reduced"` large JPEGs whose pixel hash is known are decoded at a reduced size, which is faster
    and changes the rows; the header says so.

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
        jpeg_scale=jpeg_scale,
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
    crew = Crew(engine=engine, workers=workers, decode_workers=decode_workers, decode_in=decode_in)
    run = StoreRun(teacher, out, wishes, crew, hash_key, progress)
    with run.errors():
        _check_not_half_extended(out)
        run.begin(images, unreadable, may_exist=resume or task is not None)
        return run.fill(images, task)


def finish(out: Path) -> str:
    """Close a store whose shards are all committed; returns its root digest. Doing it again changes nothing.

    Raises:
        StoreError: shards are missing, a run is still writing, or it cannot be written.
    """
    with accessing(out):
        return _finish(out)


def _finish(out: Path) -> str:
    read_header(out)
    _check_not_half_extended(out)
    with RunLock(out):
        writer = StoreWriter(out)
        missing = writer.missing(range(writer.header.shards))
        if missing:
            shown = ", ".join(map(str, missing[:20])) + (", ..." if len(missing) > 20 else "")
            raise StoreError(
                f"{out} is unfinished: {len(missing)} of {writer.header.shards} shards are missing: {shown}. Shard S "
                "is of the --task with number S modulo the number of tasks: repeat those, then "
                f"`medalign teacher finish {out}`"
            )
        require_signed_state(out)
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
            for note in leftover_notes(self._out):
                self._progress.note(note)
            hashes = [self.name(source.image_hash) for source in sources]
            batch_size = default_batch_size(device_of(self._teacher))
            header = new_header(self._loaded, hashes, self._wishes, self._crew.share_of_cores(), batch_size)
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
            if writer.header.format_version == 1:
                self._progress.note(version_note(str(self._out)))
            was_signed = is_signed(self._out)
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
            if was_signed and not is_signed(self._out):
                self._progress.note(removed_note(self._out))
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
        return store_error(
            error, self._out, f"{self._kept()} are committed and kept (`extract` continues with --resume)."
        )

    def _kept(self) -> str:
        try:
            return f"{len(committed_shards(self._out))} of {read_header(self._out).shards} shards"
        except StoreError:
            return "no shards"


def _torn_shards(writer: StoreWriter, shards: Sequence[int]) -> int:
    """Shards that an earlier run was writing when it was killed."""
    torn = {file.parent for file in leftovers(writer.path)}
    keys = ((writer.path / key for key in shard_keys(writer.header, shard)) for shard in shards)
    return sum(any(file.parent in torn for file in files) for files in keys)


def _check_not_half_extended(out: Path) -> None:
    if side_of(out).exists() and not (out / MANIFEST_FILE).is_file():
        raise StoreError(
            f"{out} was being extended, and that was interrupted: repeat the `medalign teacher extend` to complete it"
        )
