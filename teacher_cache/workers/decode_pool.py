"""Processes that read and decode images, for a GPU that is faster than the threads of one interpreter.

Each has a pipe, over which it gets image sources and answers with everything but the pixels, and a piece of shared
memory for the pixels of the two images that it has in hand. It ends when the other end of its pipe is closed, so also
when its parent is killed. Ctrl-C is the parent's.
"""

import signal
import sys
import threading
import traceback
from collections import deque
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.shared_memory import SharedMemory

import numpy as np

from ...errors import MedalignError, StoreError
from .prefetch import FailedImage, ImageSource, Prepare, PreparedImage

_IN_HAND = 2
"""Images that each process has: one is decoded while the next one waits, so that no process waits for its parent."""

_ENDS_WITHIN = 5.0
"""Seconds that a process has, after its pipe is closed, to finish its image."""

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
        with suppress(OSError):  # it has died: reading from it says how
            self.connection.send((self.begun % _IN_HAND, task.source))
        self.begun += 1


class DecodePool:
    """`count` processes that prepare images for squares of `side` pixels.

    `submit` never waits. After the death of a process every future fails with the error that names its image.
    """

    def __init__(self, prepare: Prepare, count: int, side: int) -> None:
        context = get_context("forkserver") if sys.platform == "linux" else get_context("spawn")
        context.set_forkserver_preload([__name__])
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
        """Of one image."""
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
        """End all processes; images that they have in hand are dropped. A second call does nothing."""
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
        """Take results, as long as nothing is wrong, and give out what waits."""
        while not self._closing:
            for connection in wait([*self._workers, self._woken]):
                if connection is self._woken:
                    return
                assert isinstance(connection, Connection)
                worker = self._workers[connection]
                try:
                    result: _Result = connection.recv()
                except (EOFError, OSError):
                    self._fail(_death(worker))
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


def _death(worker: _Worker) -> StoreError:
    """What is known of a process that ended by itself: the image that it had in hand is the first suspect."""
    worker.process.join()
    code = worker.process.exitcode or 0
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    where = f" while it decoded {worker.in_hand[0].source.path}" if worker.in_hand else ""
    if -code == signal.SIGKILL:
        advice = "out of memory? Repeat the command (`extract` with --resume) with fewer --decode-workers"
    elif -code == getattr(signal, "SIGBUS", 0):
        advice = "is the shared memory (/dev/shm) full? Repeat the command with fewer --decode-workers"
    else:
        advice = "if that happens again with this file, leave it out, and repeat the command (`extract` with --resume)"
    return StoreError(f"{worker.process.name} {how}{where}; committed shards are kept: {advice}")


def _slot(memory: SharedMemory, slot: int, side: int) -> np.ndarray:
    """The square [side, side, 3] of one of the images in hand."""
    return np.ndarray((side, side, 3), np.uint8, memory.buf, slot * 3 * side**2)


def _work(connection: Connection, memory_name: str, prepare: Prepare, side: int) -> None:
    """A process's whole life."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    memory = SharedMemory(memory_name)
    nothing = np.empty((0, 0, 3), np.uint8)
    with suppress(EOFError, OSError):  # the parent closed the pipe, or is gone
        while True:
            slot, source = connection.recv()
            try:
                result: _Result = prepare(source)
            except MedalignError as error:
                result = error
            except Exception as error:  # one of another process cannot be raised here: its class may not exist here
                result = RuntimeError("decoding failed:\n" + "".join(traceback.format_exception(error)))
            if isinstance(result, PreparedImage):
                _slot(memory, slot, side)[...] = result.square
                result = replace(result, square=nothing)
            connection.send(result)
    memory.close()
