"""Stage one: run the teacher once on every image and write its targets to a store."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

import torch

from ...atomic import leftover_notes
from ...errors import InputError, SettingsError, StoreError
from ...plain_text import as_typed
from ...progress import Progress, Silent
from ..store.checking.unaltered import require_signed_state
from ..store.file_names import MANIFEST_FILE
from ..store.filesystem.durable_files import leftovers
from ..store.filesystem.filesystem_errors import accessing, store_error
from ..store.filesystem.locks import RunLock
from ..store.format.keyed_hashes import naming
from ..store.reading.root_digest import version_note
from ..store.records.ledger import committed_shards
from ..store.records.zarr_metadata import read_header
from ..store.signatures.signature import is_signed, removed_note
from ..store.writing.adoption import side_of
from ..store.writing.writer import StoreWriter, shard_keys
from ..teachers.forward import Teacher
from ..teachers.recipe import TeacherRecipe
from ..workers.engines import device_of
from ..workers.prefetch import ImageSource
from ..workers.task import Task
from .extraction_options import ExtractionOptions
from .report import ExtractionReport, Tally, finished_outcome, shares, task_outcome
from .store_plan import assign_images, check_continuation, default_batch_size, distinct_sources, new_header, shard_jobs

__all__ = ["ExtractionOptions", "ExtractionReport", "ImageSource", "Task", "TeacherRecipe", "extract", "finish"]


def extract(
    teacher: Teacher | TeacherRecipe,
    images: Sequence[ImageSource],
    out: Path,
    options: ExtractionOptions,
    progress: Progress | None = None,
) -> ExtractionReport:
    """Write the teacher's E_v and E_a of every distinct image to a store at `out`.

    Images that cannot be read or decoded, or whose bytes have changed since they were hashed, get no row, but a reason
    in failures.parquet.

    Raises:
        InputError: there are no images, or planned images of the store are missing.
        StoreError: `out` exists and `resume` is false, was created with different settings, is being written by another
            run, cannot be written, the disk is full, or a worker died.
        SettingsError: a batch does not fit into the device's memory, or an engine is not available.
    """
    run = StoreRun(teacher, out, options, progress)
    with run.errors():
        _check_not_half_extended(out)
        run.begin(images, options.unreadable, may_exist=options.resume or options.task is not None)
        return run.fill(images)


def finish(out: Path) -> str:
    """Finish a store whose shards are all committed; returns its root digest. Repeating it changes nothing.

    Raises:
        StoreError: shards are missing, a run is still writing, or the store cannot be written.
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
                "belongs to the --task with number S modulo the number of tasks: run those tasks again, then "
                f"`medalign teacher finish {as_typed(out)}`"
            )
        require_signed_state(out)
        return writer.finish()


class StoreRun:
    """One extraction run on one store."""

    def __init__(
        self,
        teacher: Teacher | TeacherRecipe,
        out: Path,
        options: ExtractionOptions,
        progress: Progress | None,
    ) -> None:
        self._started = perf_counter()
        self._teacher, self._out, self._options = teacher, out, options
        self._progress = progress or Silent()
        self.name = naming(options.hash_key)
        """Maps an image's plain hash to its hash in the store."""
        self._loaded = options.crew.loaded(teacher)

    def begin(self, images: Sequence[ImageSource], unreadable: Sequence[str], *, may_exist: bool) -> None:
        """Create the store, or check that this run can continue the existing one."""
        sources = distinct_sources(images)
        if not sources:
            raise InputError("there are no images to extract")
        if not (may_exist and self._out.exists()):
            for note in leftover_notes(self._out):
                self._progress.note(note)
            hashes = [self.name(source.image_hash) for source in sources]
            batch_size = default_batch_size(device_of(self._teacher))
            header = new_header(self._loaded, hashes, self._options, self._options.crew.share_of_cores(), batch_size)
            try:
                StoreWriter.create(self._out, header, hashes, unreadable)
            except StoreError:
                if not (may_exist and self._out.exists()):  # otherwise another task created it first
                    raise
        self.check(self._out)

    def check(self, store: Path) -> None:
        """Check that this run's settings match those of a store."""
        check_continuation(store, read_header(store), self._loaded, self._options)

    def fill(self, images: Sequence[ImageSource]) -> ExtractionReport:
        """Compute the missing shards of the store, or of a task's part; finish the store unless this is a task."""
        task = self._options.task
        sources = distinct_sources(images)
        shards = task.shards(read_header(self._out).shards) if task else None
        with RunLock(self._out, shards):
            writer = StoreWriter(self._out)
            assigned = range(writer.header.shards) if shards is None else shards
            by_row, unplanned = assign_images(self._out, writer.header, sources, self.name)
            if unplanned:
                self._progress.note(
                    f"{unplanned} images are not in the plan of {self._out} and were skipped: `medalign store extend` "
                    "adds them"
                )
            if writer.header.format_version == 1:
                self._progress.note(version_note(str(self._out)))
            was_signed = is_signed(self._out)
            torn = _interrupted_shards(writer, assigned)
            pending = writer.pending(assigned)
            jobs = shard_jobs(writer.header, pending, by_row)
            done = sum(len(job.images) for job in jobs)
            self._progress.start("extracting teacher targets", done)
            tally = Tally(self._progress)
            clocks = self._options.crew.run(
                self._teacher, self._loaded, writer, jobs, self._options.hash_key, tally.tell, self._progress
            )
            root = None if task else writer.finish()
            if was_signed and not is_signed(self._out):
                self._progress.note(removed_note(self._out))
        if task and len(committed_shards(self._out)) == writer.header.shards:
            self._progress.note(
                f"all shards are committed: run `medalign teacher finish {as_typed(self._out)}` to finish the store"
            )
        outcome = task_outcome(self._out, assigned) if task else finished_outcome(self._out)
        return ExtractionReport(
            out=self._out,
            grid=str(writer.header.grid),
            images=sum(len(writer.header.shard_range(shard)) for shard in assigned),
            failures=outcome.failures,
            unreadable=outcome.unreadable,
            profiles=outcome.profiles,
            bytes=outcome.bytes,
            root_sha256=root,
            narrow_images=tally.narrow_images,
            shards_done=tally.shards_done,
            shards_reused=len(assigned) - len(pending),
            shards_redone=torn,
            images_done=done,
            workers=len(clocks),
            seconds=perf_counter() - self._started,
            **shares(clocks),
        )

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Convert exceptions to errors that say what is kept and how to continue."""
        try:
            yield
        except OSError as error:
            raise self._cannot_write(error) from error
        except torch.OutOfMemoryError as error:
            size = read_header(self._out).batch_size
            raise SettingsError(
                f"a batch of {size} images does not fit into the device's memory. The batch size of a store is fixed: "
                f"remove {self._out} and run the command again with --batch-size {max(1, size // 2)}"
            ) from error
        except KeyboardInterrupt:
            self._progress.note(f"interrupted; kept: {self._kept()}; use --resume to continue")
            raise

    def _cannot_write(self, error: OSError) -> StoreError:
        return store_error(error, self._out, f"Kept: {self._kept()} (use `extract --resume` to continue).")

    def _kept(self) -> str:
        try:
            return f"{len(committed_shards(self._out))} of {read_header(self._out).shards} shards"
        except StoreError:
            return "no shards"


def _interrupted_shards(writer: StoreWriter, shards: Sequence[int]) -> int:
    """Number of shards that an earlier run was writing when it was killed."""
    torn = {file.parent for file in leftovers(writer.path)}
    keys = ((writer.path / key for key in shard_keys(writer.header, shard)) for shard in shards)
    return sum(any(file.parent in torn for file in files) for files in keys)


def _check_not_half_extended(out: Path) -> None:
    if side_of(out).exists() and not (out / MANIFEST_FILE).is_file():
        raise StoreError(
            f"an extension of {out} was interrupted: run the same `medalign store extend` again to complete it"
        )
