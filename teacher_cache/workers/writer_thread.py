"""A thread that encodes computed batches and writes them to a store while the teacher computes the next ones."""

import queue
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from ...choices import Profile
from ..store.filesystem.locks import ShardLock
from ..store.format.header import StoreHeader
from ..store.format.keyed_hashes import HashKey, naming
from ..store.format.profiles import WIDER, EncodedRows, encode
from ..store.writing.writer import ShardInProgress, StoreWriter
from ..teachers.forward import TeacherOutput
from .device_copies import PendingRows
from .messages import Committed, ShardJob, Tell
from .prefetch import FailedImage, PreparedImage


@dataclass(frozen=True, slots=True)
class ComputedBatch:
    """The next images of a shard, in row order, and the teacher's output for those that were decoded."""

    job: ShardJob
    images: tuple[PreparedImage | FailedImage, ...]
    output: TeacherOutput | EncodedRows | PendingRows | None
    """Already encoded if the teacher uses all cores, so that encoding cannot overlap with it, or runs on a GPU."""
    closes_shard: bool


class ShardSink:
    """A writer thread with a bounded queue.

    An error of the thread is raised by the next `put` or by `close`.
    """

    def __init__(self, writer: StoreWriter, tell: Tell, hash_key: HashKey | None, depth: int = 2) -> None:
        self.missed: list[ShardJob] = []
        """Shards that must be recomputed in a wider profile; complete after `close`."""
        self._writer, self._tell, self._hash_key = writer, tell, hash_key
        self._queue: queue.Queue[ComputedBatch | None] = queue.Queue(depth)
        self._error: BaseException | None = None
        self._open: _OpenShard | None = None
        self._thread = threading.Thread(target=self._work, name="medalign-write", daemon=True)
        self._thread.start()

    def put(self, batch: ComputedBatch) -> None:
        """Add a batch to the queue; waits while it is full."""
        self._raise_error()
        self._queue.put(batch)

    def settle(self) -> None:
        """Wait until all batches in the queue are written."""
        self._queue.join()
        self._raise_error()

    def has_missed(self, shard: int) -> bool:
        """Whether a shard must be recomputed, so that the rest of it can be skipped."""
        return any(job.shard == shard for job in self.missed)

    def close(self) -> None:
        """Wait until everything is written; an incomplete shard is discarded."""
        self._queue.put(None)
        self._thread.join()
        self._raise_error()

    def _raise_error(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _work(self) -> None:
        """Write until the final `None`; after an error keep draining the queue, so that `put` never blocks."""
        failed = False
        while (batch := self._queue.get()) is not None:
            try:
                if not failed:
                    self._write(batch)
            except BaseException as error:
                failed, self._error = True, error
                self._abort()
            finally:
                self._queue.task_done()
        self._abort()

    def _write(self, batch: ComputedBatch) -> None:
        job = batch.job
        if self.has_missed(job.shard):
            return
        if self._open is None:
            self._open = _OpenShard(self._writer, job, self._hash_key)
        assert self._open.job is job
        if not self._open.append(batch):
            self._abort()
            self.missed.append(ShardJob(job.shard, WIDER[job.profile], job.images))
        elif batch.closes_shard:
            failures, narrow = self._open.commit(), self._open.narrow
            self._open = None
            self._tell(Committed(job.shard, failures, narrow))

    def _abort(self) -> None:
        if self._open is not None:
            self._open.abort()
            self._open = None


class _OpenShard:
    """The shard that is being written, with its lock."""

    def __init__(self, writer: StoreWriter, job: ShardJob, hash_key: HashKey | None) -> None:
        self.job = job
        self._header = writer.header
        self._name = naming(hash_key)
        self._failures: list[FailedImage] = []
        self.narrow = 0
        """Number of images so far that use less than an eighth of their pixels' range."""
        with ExitStack() as held:
            held.enter_context(ShardLock(writer.path, job.shard))
            self._shard: ShardInProgress = writer.begin(job.shard, job.profile)
            self._held = held.pop_all()

    def append(self, batch: ComputedBatch) -> bool:
        """Write the rows of a batch; False if one of them needs a wider profile."""
        output = batch.output
        if isinstance(output, TeacherOutput):
            output = encode_output(self.job, output, self._header)
        encoded = output if output is None or isinstance(output, EncodedRows) else output.wait()
        if encoded is not None and _needs_wider(encoded, self.job.profile, self._header.tolerance):
            return False
        rows = _rows(encoded)
        for image in batch.images:
            if isinstance(image, FailedImage):
                self._fail(image)
                continue
            arrays, change = next(rows)
            if not np.isfinite(change):
                self._fail(FailedImage(image.image_hash, f"the teacher's output in {self._header.dtype} is not finite"))
                continue
            self.narrow += image.narrow
            self._shard.append(
                arrays,
                image_hash=self._name(image.image_hash),
                pixel_hash=self._name(image.pixel_hash),
                size=image.size,
                max_abs_dS=change,
            )
        return True

    def _fail(self, image: FailedImage) -> None:
        failure = FailedImage(self._name(image.image_hash), image.reason)
        self._shard.fail(failure.image_hash, failure.reason)
        self._failures.append(failure)

    def commit(self) -> tuple[FailedImage, ...]:
        """Commit the shard; returns its images without a row."""
        with self._held:
            self._shard.commit()
        return tuple(self._failures)

    def abort(self) -> None:
        with self._held:
            self._shard.abort()


def encode_output(job: ShardJob, output: TeacherOutput, header: StoreHeader) -> EncodedRows:
    """Encode a batch in the profile of its shard."""
    return encode(job.profile, output.patches, output.attention, header.native_grid, header.grid)


def _needs_wider(encoded: EncodedRows, profile: Profile, tolerance: float | None) -> bool:
    """Whether a row does not fit this profile. nan means that the teacher's output is not finite, which never fits."""
    misses = np.isinf(encoded.max_abs_dS)
    if tolerance is not None:
        misses |= encoded.max_abs_dS > tolerance
    return profile in WIDER and bool(misses.any())


def _rows(encoded: EncodedRows | None) -> Iterator[tuple[dict[str, np.ndarray], float]]:
    """Arrays and max|dS| of each image."""
    if encoded is not None:
        for index, change in enumerate(encoded.max_abs_dS):
            yield {name: array[index] for name, array in encoded.arrays.items()}, float(change)
