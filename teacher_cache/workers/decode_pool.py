"""Processes that read and decode images, for a GPU that is faster than the decoding threads of one interpreter.

Each process has a pipe, over which it receives image sources and returns everything except the pixels, and a block of
shared memory for the pixels of its two assigned images. It ends when the other end of its pipe is closed, which also
happens when its parent is killed. The parent handles Ctrl-C.
"""

import signal
import threading
import traceback
from collections import deque
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.shared_memory import SharedMemory

import numpy as np

from ...errors import MedalignError, StoreError
from .child_processes import how_it_ended, start_context
from .prefetch import FailedImage, ImageSource, Prepare, PreparedImage

_IN_HAND = 2
"""Images assigned to each process: one is decoded while the next one waits, so the process never waits for its parent.
"""

_ENDS_WITHIN = 5.0
"""Seconds that a process has to finish its image after its pipe is closed."""

_Result = PreparedImage | FailedImage | Exception


@dataclass(frozen=True, slots=True)
class _Task:
    source: ImageSource
    future: Future[PreparedImage | FailedImage]


@dataclass(slots=True)
class _Worker:
    """The parent's side of one process."""

    process: BaseProcess
    connection: Connection
    memory: SharedMemory
    in_hand: deque[_Task] = field(default_factory=deque)
    begun: int = 0
    done: int = 0

    def give(self, task: _Task) -> None:
        self.in_hand.append(task)
        with suppress(OSError):  # it has died, which reading from it reports
            self.connection.send((self.begun % _IN_HAND, task.source))
        self.begun += 1


class DecodePool:
    """`count` processes that prepare images as squares of `side` pixels.

    `submit` never blocks. If a process dies, every future fails with an error that names the image it was decoding.
    """

    def __init__(self, prepare: Prepare, count: int, side: int) -> None:
        context = start_context(__name__)
        self._side = side
        self._lock = threading.Lock()
        self._waiting: deque[_Task] = deque()
        self._error: Exception | None = None
        self._closing = False
        self._workers: dict[Connection, _Worker] = {}
        try:
            for number in range(count):
                ours, theirs = context.Pipe()
                memory = SharedMemory(create=True, size=_IN_HAND * self._bytes)
                arguments = (theirs, memory.name, prepare, side)
                process = context.Process(target=_work, args=arguments, name=f"medalign-decode-{number}", daemon=True)
                self._workers[ours] = _Worker(process, ours, memory)
                process.start()
                theirs.close()
        except BaseException:
            self._release()
            raise
        self._wake, self._woken = context.Pipe()
        self._thread = threading.Thread(target=self._collect, name="medalign-decoded", daemon=True)
        self._thread.start()

    @property
    def _bytes(self) -> int:
        """Size of one image's pixels."""
        return 3 * self._side**2

    def submit(self, source: ImageSource) -> Future[PreparedImage | FailedImage]:
        task = _Task(source, Future())
        with self._lock:
            if self._error is not None:
                task.future.set_exception(self._error)
                return task.future
            idlest = min(self._workers.values(), key=lambda worker: len(worker.in_hand))
            if len(idlest.in_hand) < _IN_HAND:
                idlest.give(task)
            else:
                self._waiting.append(task)
        return task.future

    def close(self) -> None:
        """End all processes; their assigned images are dropped. A second call does nothing."""
        if self._closing:
            return
        self._closing = True
        with suppress(OSError):
            self._wake.send(None)
        self._thread.join()
        self._release()
        self._wake.close()
        self._woken.close()

    def _release(self) -> None:
        for worker in self._workers.values():
            worker.connection.close()
        for worker in self._workers.values():
            if worker.process.pid is not None:
                worker.process.join(_ENDS_WITHIN)
                if worker.process.is_alive():
                    worker.process.kill()
                    worker.process.join()
            worker.memory.close()
            worker.memory.unlink()

    def _collect(self) -> None:
        """Receive results and assign waiting tasks, until an error occurs."""
        while not self._closing:
            for connection in wait([*self._workers, self._woken]):
                if connection is self._woken:
                    return
                assert isinstance(connection, Connection)
                worker = self._workers[connection]
                try:
                    result: _Result = connection.recv()
                except (EOFError, OSError):
                    self._fail(_death_error(worker))
                    return
                self._take(worker, result)

    def _take(self, worker: _Worker, result: _Result) -> None:
        if isinstance(result, PreparedImage):
            result = replace(result, square=self._square(worker, worker.done % _IN_HAND).copy())
        with self._lock:
            task = worker.in_hand.popleft()
            worker.done += 1
            if self._waiting:
                worker.give(self._waiting.popleft())
        if isinstance(result, Exception):
            task.future.set_exception(result)
        else:
            task.future.set_result(result)

    def _square(self, worker: _Worker, slot: int) -> np.ndarray:
        return _slot(worker.memory, slot, self._side)

    def _fail(self, error: Exception) -> None:
        with self._lock:
            self._error = error
            tasks = [*(task for worker in self._workers.values() for task in worker.in_hand), *self._waiting]
        for task in tasks:
            task.future.set_exception(error)


def _death_error(worker: _Worker) -> StoreError:
    """The error for a process that died; the image that it was decoding is the most likely cause."""
    end, killed_by = how_it_ended(worker.process)
    where = f" while it decoded {worker.in_hand[0].source.path}" if worker.in_hand else ""
    if killed_by == signal.SIGKILL:
        advice = "out of memory? Run the command again (`extract` with --resume) with fewer --decode-workers"
    elif killed_by == getattr(signal, "SIGBUS", None):
        advice = "is the shared memory (/dev/shm) full? Run the command again with fewer --decode-workers"
    else:
        advice = "run the command again (`extract` with --resume); if this file fails again, leave it out"
    return StoreError(f"{end}{where}; committed shards are kept: {advice}")


def _slot(memory: SharedMemory, slot: int, side: int) -> np.ndarray:
    """The square [side, side, 3] of one of the assigned images."""
    return np.ndarray((side, side, 3), np.uint8, memory.buf, slot * 3 * side**2)


def _work(connection: Connection, memory_name: str, prepare: Prepare, side: int) -> None:
    """Main function of a process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    memory = SharedMemory(memory_name)
    nothing = np.empty((0, 0, 3), np.uint8)
    with suppress(EOFError, OSError):  # the parent closed the pipe, or has died
        while True:
            slot, source = connection.recv()
            try:
                result: _Result = prepare(source)
            except MedalignError as error:
                result = error
            except Exception as error:  # sent as text, because the parent may not have its class
                result = RuntimeError("decoding failed:\n" + "".join(traceback.format_exception(error)))
            if isinstance(result, PreparedImage):
                _slot(memory, slot, side)[...] = result.square
                result = replace(result, square=nothing)
            connection.send(result)
    memory.close()
