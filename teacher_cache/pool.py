"""Local worker processes: each loads the teacher, asks for shards, and ends with its parent.

They are forked from a server that has imported everything and done nothing, which is quick, and safe where forking
this process would not be: neither CUDA nor a process with threads survives a fork.
"""

import os
import queue
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from ..errors import StoreError
from .jobs import Clocks, Event, ShardJob, Tell, WorkSettings, portable
from .store.writer import StoreWriter
from .teachers.recipe import TeacherRecipe
from .work import compute_shards

_ENDS_WITHIN = 20.0
"""Seconds that a worker has, after it was asked to stop, to write what it has computed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerOrder:
    """Everything a worker is told when it starts."""

    store: Path
    recipe: TeacherRecipe
    settings: WorkSettings


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A worker asks for its next shard."""


@dataclass(frozen=True, slots=True)
class Broken:
    """Why a worker ended; an error that can be acted on keeps its class."""

    error: Exception


_Message = Event | _Wanted | Broken | Clocks


def run_workers(order: WorkerOrder, jobs: Iterable[ShardJob], tell: Tell, workers: int) -> list[Clocks]:
    """Compute and commit all jobs with so many processes; `tell` is called from this thread alone.

    Raises:
        StoreError: a worker was killed.
        Exception: what went wrong in a worker; all others are stopped, what they committed stays.
    """
    pool = _Pool(order, workers)
    try:
        return pool.run(iter(jobs), tell)
    finally:
        pool.stop()


class _Pool:
    """The parent's side."""

    def __init__(self, order: WorkerOrder, workers: int) -> None:
        context = get_context("forkserver") if sys.platform == "linux" else get_context("spawn")
        context.set_forkserver_preload([__name__])
        self._workers: dict[Connection, BaseProcess] = {}
        self._done: set[Connection] = set()
        for number in range(workers):
            ours, theirs = context.Pipe()
            recipe = order.recipe.for_worker(number)
            given = WorkerOrder(store=order.store, recipe=recipe, settings=order.settings)
            process = context.Process(
                target=_work,
                args=(theirs, given),
                name=f"medalign-worker-{number}",
                daemon=order.settings.decode_in == "threads",  # a daemon may have no processes of its own
            )
            process.start()
            theirs.close()
            self._workers[ours] = process

    def run(self, jobs: Iterator[ShardJob], tell: Tell) -> list[Clocks]:
        clocks: list[Clocks] = []
        while working := [connection for connection in self._workers if connection not in self._done]:
            for connection in wait(working):
                assert isinstance(connection, Connection)
                message = self._receive(connection)
                if isinstance(message, _Wanted):
                    _send(connection, next(jobs, None))
                elif isinstance(message, Broken):
                    raise message.error
                elif isinstance(message, Clocks):
                    clocks.append(message)
                    self._done.add(connection)
                else:
                    tell(message)
        return clocks

    def _receive(self, connection: Connection) -> _Message:
        try:
            message: _Message = connection.recv()
            return message
        except (EOFError, ConnectionResetError):
            process = self._workers[connection]
            process.join()
            code = process.exitcode or 0
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            memory = " (out of memory?)" if code == -signal.SIGKILL else ""
            raise StoreError(
                f"{process.name} {how}{memory}; committed shards are kept: repeat the command (`extract` with "
                "--resume), with fewer --workers where memory is short"
            ) from None

    def stop(self) -> None:
        """Ask every worker that still runs to stop, and see to it that all do."""
        for connection, process in self._workers.items():
            if connection not in self._done:
                process.terminate()
        for connection, process in self._workers.items():
            process.join(_ENDS_WITHIN)
            if process.is_alive():
                process.kill()
                process.join()
            connection.close()


def _send(connection: Connection, job: ShardJob | None) -> None:
    with suppress(BrokenPipeError):  # it has died: reading from it says how
        connection.send(job)


def _work(connection: Connection, order: WorkerOrder) -> None:
    """A worker's whole life."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all of the terminal's processes: the parent decides
    signal.signal(signal.SIGTERM, _interrupt)
    channel = _Channel(connection)
    try:
        teacher = order.recipe.load()
        clocks = compute_shards(teacher, StoreWriter(order.store), channel.jobs(), channel.send, order.settings)
        channel.send(clocks)
    except KeyboardInterrupt:
        pass
    except Exception as error:
        channel.send(Broken(portable(error)))
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


class _Channel:
    """A worker's side of the pipe. A thread reads it, so that the death of the parent ends the worker at once."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._jobs: queue.SimpleQueue[ShardJob | None] = queue.SimpleQueue()
        self._sending = threading.Lock()
        threading.Thread(target=self._listen, name="medalign-parent", daemon=True).start()

    def jobs(self) -> Iterator[ShardJob]:
        """Ask for one shard after the other until there are no more."""
        self.send(_Wanted())
        while (job := self._jobs.get()) is not None:
            yield job
            self.send(_Wanted())

    def send(self, message: _Message) -> None:
        with self._sending:
            self._connection.send(message)

    def _listen(self) -> None:
        while True:
            try:
                self._jobs.put(self._connection.recv())
            except (EOFError, OSError):
                os._exit(1)
