"""Computing shards, the same way in every engine: decode ahead, run the teacher, and encode and commit in a thread.

If the teacher uses all cores of the machine, the three steps take turns instead of overlapping.

A shard is the unit of work, commit and resume. A batch never spans two shards, so a row does not depend on which worker
computed its neighbors.
"""

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from functools import partial
from time import perf_counter
from typing import NamedTuple

from ...errors import StoreError
from ..store.format.profiles import DeviceRows, EncodedRows, encode_on_device
from ..store.writing.writer import StoreWriter
from ..teachers.forward import Teacher, TeacherOutput
from .cores import arithmetic_threads, usable_cores
from .decode_pool import DecodePool
from .device_copies import PendingRows, copies_of
from .messages import Advanced, Clocks, ShardJob, Tell, WorkSettings
from .prefetch import (
    Decoders,
    DecodeThreads,
    FailedImage,
    ImageSource,
    PreparedImage,
    prefetched,
    prepare_image,
)
from .writer_thread import ComputedBatch, ShardSink, encode_output

_BATCHES_AHEAD = 2
"""Batches that are decoded in advance while the teacher computes."""


def compute_shards(
    teacher: Teacher, writer: StoreWriter, jobs: Iterable[ShardJob], tell: Tell, settings: WorkSettings
) -> Clocks:
    """Compute and commit every shard of `jobs`; an interrupt keeps those whose batches are all computed.

    A shard with a row that exceeds the store's tolerance is recomputed at the end in the next wider profile. The next
    shard is taken from `jobs` while the previous one is still being computed.

    Raises:
        StoreError: another process writes one of the shards, or the weights differ from the store's.
        OSError: a shard cannot be written.
    """
    if teacher.weights_sha256 != writer.header.weights_sha256:
        raise StoreError(
            f"these weights (SHA-256 {teacher.weights_sha256}) are not the weights of {writer.path} "
            f"({writer.header.weights_sha256})"
        )
    work = _Work(teacher, writer, tell, settings)
    with arithmetic_threads(writer.header.threads):
        remaining = work.go(jobs)
        while remaining:
            remaining = work.go(remaining)
    return work.clocks()


class _StartedBatch(NamedTuple):
    """A batch whose images are being decoded."""

    job: ShardJob
    closes_shard: bool


class _Work:
    """The main thread's loop over shards, with its timings."""

    def __init__(self, teacher: Teacher, writer: StoreWriter, tell: Tell, settings: WorkSettings) -> None:
        self._teacher, self._writer, self._tell, self._settings = teacher, writer, tell, settings
        self._batch_size = writer.header.batch_size
        # With all cores in use, anything that disturbs one thread delays the forward pass, so the steps take turns.
        self._takes_all_cores = teacher.device.type == "cpu" and writer.header.threads >= usable_cores()
        self._copies = copies_of(teacher.device)
        self._started = perf_counter()
        self._read = self._forward = self._write = 0.0

    def clocks(self) -> Clocks:
        total = perf_counter() - self._started
        return Clocks(total=total, read=self._read, forward=self._forward, write=self._write)

    def go(self, jobs: Iterable[ShardJob]) -> list[ShardJob]:
        """Compute all jobs once; returns those that must be recomputed in a wider profile."""
        started: deque[_StartedBatch] = deque()
        sink = ShardSink(self._writer, self._tell, self._settings.hash_key)
        try:
            with closing(self._decoded(jobs, started)) as decoded:
                waiting = perf_counter()
                for images in decoded:
                    self._read += perf_counter() - waiting
                    batch = started.popleft()
                    if not sink.has_missed(batch.job.shard):  # otherwise only drain the decoder
                        self._batch(batch, images, sink)
                    self._tell(Advanced(len(images)))
                    waiting = perf_counter()
        finally:
            waiting = perf_counter()
            sink.close()
            self._write += perf_counter() - waiting
        for job in sink.missed:
            self._tell(Advanced(-len(job.images)))
        return sink.missed

    def _decoded(
        self, jobs: Iterable[ShardJob], started: deque[_StartedBatch]
    ) -> Generator[list[PreparedImage | FailedImage], None, None]:
        """The decoded batches of all jobs in order; each is added to `started` when its images are requested."""

        def batches() -> Iterator[tuple[ImageSource, ...]]:
            for job in jobs:
                for first in range(0, len(job.images), self._batch_size):
                    end = first + self._batch_size
                    started.append(_StartedBatch(job, closes_shard=end >= len(job.images)))
                    yield job.images[first:end]

        header = self._writer.header
        prepare = partial(
            prepare_image, spec=self._teacher.spec, geometry=header.geometry, jpeg_scale=header.jpeg_scale
        )
        count, in_processes = self._settings.decode_workers, self._settings.decode_in == "processes"
        decoders: Decoders
        if in_processes:
            decoders = DecodePool(prepare, count, self._teacher.spec.image_size)
        else:
            decoders = DecodeThreads(prepare, count)
        ahead = 0 if self._takes_all_cores and not in_processes else _BATCHES_AHEAD
        return prefetched(batches(), decoders, ahead=ahead)

    def _encoded(self, job: ShardJob, output: TeacherOutput) -> DeviceRows:
        header = self._writer.header
        return encode_on_device(job.profile, output.patches, output.attention, header.native_grid, header.grid)

    def _batch(self, batch: _StartedBatch, images: list[PreparedImage | FailedImage], sink: ShardSink) -> None:
        started = perf_counter()
        if self._takes_all_cores:
            sink.settle()
        settled = perf_counter()
        prepared = [image for image in images if isinstance(image, PreparedImage)]
        output: TeacherOutput | EncodedRows | PendingRows | None = None
        if prepared:
            output = self._teacher.forward(self._copies.pixels(self._teacher, prepared))
        forwarded = perf_counter()
        if isinstance(output, TeacherOutput) and self._takes_all_cores:
            output = encode_output(batch.job, output, self._writer.header)
        elif isinstance(output, TeacherOutput) and self._teacher.device.type != "cpu":
            output = self._copies.rows(self._encoded(batch.job, output))
        sink.put(ComputedBatch(batch.job, tuple(images), output, batch.closes_shard))
        self._forward += forwarded - settled
        self._write += settled - started + perf_counter() - forwarded
