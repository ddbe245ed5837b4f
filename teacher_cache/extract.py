"""Stage one: the teacher runs once over every image; decoding, forward and writing overlap.

A shard is the unit of work: batches never straddle shards, so a row does not depend on where a run was
interrupted.
"""

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from math import isfinite
from pathlib import Path
from time import perf_counter

import torch

from ..errors import InputError, SettingsError, StoreError
from ..progress import Progress, Silent
from .geometry import Geometry, PatchGrid
from .plan import distinct_sources, plan_header, plan_shard_rows
from .prefetch import FailedImage, ImageSource, PreparedImage, prefetched, prepare_image
from .sink import FinishedBatch, FinishedImage, ShardSink
from .store.access import LocalFiles
from .store.format import FAILURES_FILE, DataUse, StoreHeader
from .store.index import read_columns
from .store.ledger import committed_shards
from .store.locks import RunLock
from .store.profiles import encode
from .store.writer import StoreWriter
from .teachers.forward import Teacher

__all__ = ["ExtractionReport", "ImageSource", "extract"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ExtractionReport:
    """What a run did."""

    out: Path
    images: int
    """Distinct images of the plan."""
    failures: tuple[FailedImage, ...]
    """All images of the store without a row, those of earlier runs included."""
    shards_done: int
    shards_reused: int
    """Committed by an earlier run."""
    images_done: int
    """Images that this run computed or failed."""
    seconds: float
    decode_share: float
    """Share of the time that the main thread waited for decoded images."""
    forward_share: float
    """Share of the time in the teacher, interpolation and rounding."""
    write_share: float
    """Share of the time that the main thread waited for the writer."""
    bytes: int
    """Of all files of the store."""
    root_sha256: str

    @property
    def images_per_second(self) -> float:
        return self.images_done / self.seconds if self.seconds > 0 else 0.0


def extract(
    teacher: Teacher,
    images: Sequence[ImageSource],
    out: Path,
    *,
    grid: PatchGrid,
    geometry: Geometry = "pad",
    batch_size: int = 32,
    shard_rows: int | None = None,
    data_use: DataUse = "private",
    resume: bool = False,
    decode_workers: int | None = None,
    progress: Progress | None = None,
) -> ExtractionReport:
    """Write the teacher's E_v and E_a of every distinct image, interpolated to `grid`, to a store at `out`.

    Images that cannot be read or decoded, or whose bytes are no longer those that were hashed, get no row
    and a reason in failures.parquet. With `resume`, committed shards of an earlier run with the same
    settings are kept.
    `shard_rows` is by default 64, or what makes 300 shards.

    Raises:
        InputError: there are no images.
        StoreError: `out` exists without `resume`, was begun with other settings, is being written by another
            run, it cannot be written, or the disk is full.
        SettingsError: a batch does not fit into the device's memory.
    """
    started = perf_counter()
    progress = progress or Silent()
    sources = distinct_sources(images)
    if not sources:
        raise InputError("there are no images to extract")
    continued = resume and out.exists()
    rows = plan_shard_rows(out, len(sources), shard_rows, continued)
    header = plan_header(teacher, sources, grid, geometry, data_use, rows, batch_size)
    try:
        writer = _writer(out, header, sources, continued)
        with RunLock(out):
            pending = writer.pending()
            run = _Run(teacher, writer, sources, pending, geometry, batch_size, decode_workers, progress)
            run.go()
            root = writer.finish()
    except OSError as error:
        raise _cannot_write(error, out, header) from error
    except torch.OutOfMemoryError as error:
        raise SettingsError(
            f"a batch of {batch_size} images does not fit into the memory of {teacher.device}: repeat the same "
            f"command with --resume --batch-size {max(1, batch_size // 2)}"
        ) from error
    except KeyboardInterrupt:
        done = len(committed_shards(out))
        progress.note(f"stopped; {done} of {header.shards} shards are kept, --resume continues from there")
        raise
    seconds = perf_counter() - started
    return ExtractionReport(
        out=out,
        images=len(sources),
        failures=_failures(out),
        shards_done=run.shards_done,
        shards_reused=header.shards - len(pending),
        images_done=sum(len(header.shard_range(shard)) for shard in pending),
        seconds=seconds,
        decode_share=run.decode_seconds / seconds,
        forward_share=run.forward_seconds / seconds,
        write_share=run.write_seconds / seconds,
        bytes=sum(file.stat().st_size for file in out.rglob("*") if file.is_file()),
        root_sha256=root,
    )


class _Run:
    """The main thread's loop over pending shards, with its clocks."""

    def __init__(
        self,
        teacher: Teacher,
        writer: StoreWriter,
        sources: Sequence[ImageSource],
        pending: Sequence[int],
        geometry: Geometry,
        batch_size: int,
        decode_workers: int | None,
        progress: Progress,
    ) -> None:
        self._teacher, self._writer, self._sources, self._pending = teacher, writer, sources, pending
        self._geometry, self._batch_size, self._progress = geometry, batch_size, progress
        self._workers = decode_workers or min(8, os.cpu_count() or 1)
        self.shards_done = 0
        self.decode_seconds = self.forward_seconds = self.write_seconds = 0.0

    def go(self) -> None:
        """Write all pending shards; when interrupted, keep those whose batches are all computed."""
        header = self._writer.header
        rows = [row for shard in self._pending for row in header.shard_range(shard)]
        self._progress.start("extracting teacher targets", len(rows))
        prepare = partial(prepare_image, spec=self._teacher.spec, geometry=self._geometry)
        ahead = 2 * self._batch_size + self._workers
        decoded = prefetched((self._sources[row] for row in rows), prepare, workers=self._workers, ahead=ahead)
        sink = ShardSink(self._writer)
        try:
            with closing(decoded):
                for shard in self._pending:
                    self._shard(shard, decoded, sink)
        finally:
            sink.close()
            self.shards_done = sink.shards_done

    def _shard(self, shard: int, decoded: Iterator[PreparedImage | FailedImage], sink: ShardSink) -> None:
        total = len(self._writer.header.shard_range(shard))
        for start in range(0, total, self._batch_size):
            count = min(self._batch_size, total - start)
            begun = perf_counter()
            batch = [next(decoded) for _ in range(count)]
            read = perf_counter()
            rows = self._compute(batch)
            computed = perf_counter()
            sink.put(FinishedBatch(shard, rows, closes_shard=start + count == total))
            self.decode_seconds += read - begun
            self.forward_seconds += computed - read
            self.write_seconds += perf_counter() - computed
            self._progress.advance(count)

    def _compute(self, batch: Sequence[PreparedImage | FailedImage]) -> list[FinishedImage | FailedImage]:
        """One forward pass over the images that could be decoded; failed ones keep their place."""
        good = [image for image in batch if isinstance(image, PreparedImage)]
        results = iter(_targets(self._teacher, good, self._writer.header))
        rows = [next(results) if isinstance(image, PreparedImage) else image for image in batch]
        for row in rows:
            if isinstance(row, FailedImage):
                self._progress.note(f"image {row.image_hash[:12]} failed: {row.reason}")
        return rows


def _targets(
    teacher: Teacher, images: Sequence[PreparedImage], header: StoreHeader
) -> Iterator[FinishedImage | FailedImage]:
    """Teacher forward, interpolation to `grid` (Eq. 2) and rounding of one batch."""
    if not images:
        return
    output = teacher.forward(torch.stack([image.pixels for image in images]))
    rows = encode(header.profile, output.patches, output.attention, header.native_grid, header.grid)
    for position, (image, change) in enumerate(zip(images, rows.max_abs_dS.tolist(), strict=True)):
        if not isfinite(change):
            reason = f"the teacher's output in {teacher.dtype} does not fit float16 or is not finite"
            yield FailedImage(image.image_hash, reason)
            continue
        yield FinishedImage(
            image_hash=image.image_hash,
            pixel_hash=image.pixel_hash,
            size=image.size,
            arrays={name: values[position] for name, values in rows.arrays.items()},
            max_abs_dS=change,
        )


def _writer(out: Path, header: StoreHeader, sources: Sequence[ImageSource], continued: bool) -> StoreWriter:
    if continued:
        return StoreWriter.resume(out, header)
    return StoreWriter.create(out, header, [source.image_hash for source in sources])


def _failures(store: Path) -> tuple[FailedImage, ...]:
    table = read_columns(LocalFiles(store), FAILURES_FILE, ["image_hash", "reason"])
    return tuple(FailedImage(**row) for row in table.to_pylist())


def _cannot_write(error: OSError, out: Path, header: StoreHeader) -> StoreError:
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return StoreError(f"cannot write to {out}: {error}")
    done = len(committed_shards(out))
    return StoreError(
        f"the disk of {out} is full. {done} of {header.shards} shards are committed and kept: free some "
        f"space, "
        "then repeat the same command with --resume"
    )
