"""One thread that writes finished batches to a store while the teacher computes the next ones."""

import queue
import threading
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from .prefetch import FailedImage
from .store.writer import ShardInProgress, StoreWriter


@dataclass(frozen=True, kw_only=True, slots=True)
class FinishedImage:
    """One image's row."""

    image_hash: str
    pixel_hash: str
    size: tuple[int, int]
    arrays: dict[str, NDArray[Any]]
    """As they are stored, by name."""
    max_abs_dS: float


@dataclass(frozen=True, slots=True)
class FinishedBatch:
    """The next rows of one shard, in row order."""

    shard: int
    rows: list[FinishedImage | FailedImage]
    closes_shard: bool


class ShardSink:
    """A bounded queue in front of the store's writer.

    An error of the writing thread is raised by the next `put` or by `close`.
    """

    def __init__(self, writer: StoreWriter, depth: int = 4) -> None:
        self.shards_done = 0
        self._writer = writer
        self._queue: queue.Queue[FinishedBatch | None] = queue.Queue(depth)
        self._error: BaseException | None = None
        self._open: ShardInProgress | None = None
        self._thread = threading.Thread(target=self._work, name="medalign-write", daemon=True)
        self._thread.start()

    def put(self, batch: FinishedBatch) -> None:
        """Hand a batch over; waits while the queue is full."""
        self._raise_error()
        self._queue.put(batch)

    def close(self) -> None:
        """Wait until everything is written; a shard that is not whole by then is thrown away."""
        self._queue.put(None)
        self._thread.join()
        self._raise_error()

    def _raise_error(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _work(self) -> None:
        """Write until the closing `None`; after an error go on emptying the queue, so `put` never hangs."""
        failed = False
        while (batch := self._queue.get()) is not None:
            if failed:
                continue
            try:
                self._write(batch)
            except BaseException as error:
                failed, self._error = True, error
                self._abort()
        self._abort()

    def _write(self, batch: FinishedBatch) -> None:
        if self._open is None:
            self._open = self._writer.begin(batch.shard)
        assert self._open.shard == batch.shard
        for row in batch.rows:
            if isinstance(row, FailedImage):
                self._open.fail(row.image_hash, row.reason)
            else:
                self._open.append(
                    row.arrays,
                    image_hash=row.image_hash,
                    pixel_hash=row.pixel_hash,
                    size=row.size,
                    max_abs_dS=row.max_abs_dS,
                )
        if batch.closes_shard:
            self._open.commit()
            self._open = None
            self.shards_done += 1

    def _abort(self) -> None:
        if self._open is not None:
            self._open.abort()
            self._open = None
