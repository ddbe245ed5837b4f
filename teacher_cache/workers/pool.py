"""Local worker processes: each loads its model, requests jobs, and ends when its parent does.

They are forked from a server that has imported all modules and done nothing else. This is fast, and safe where forking
this process is not: neither CUDA nor a multithreaded process survives a fork.
"""

import os
import queue
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from ...errors import StoreError
from ..store.writing.writer import StoreWriter
from ..teachers.recipe import TeacherRecipe
from ..teachers.teacher_weights import HUB_PREFIX
from .child_processes import how_it_ended, start_context
from .messages import ShardJob, Tell, WorkSettings, portable
from .shard_work import compute_shards

_ENDS_WITHIN = 20.0
"""Seconds that a worker has to write its computed results after a request to stop."""


@runtime_checkable
class Order(Protocol):
    """What workers receive when they start and how they do jobs; everything in it can be pickled."""

    @property
    def kept(self) -> str:
        """A text that says what is kept when a worker dies, and how to continue."""

    @property
    def writes(self) -> Path | None:
        """The folder that the workers write to, on a shared file system; `None` if they write nothing."""

    @property
    def has_processes(self) -> bool:
        """Whether a worker starts processes, which a daemon may not do."""

    def for_worker(self, number: int) -> "Order":
        """The order for one worker of this machine, with its own GPU if there are several."""

    def needs(self) -> dict[str, int]:
        """Resources that Ray reserves for each worker: `num_cpus`, `num_gpus`."""

    def files(self, jobs: Sequence[Any]) -> list[Path]:
        """A sample of the files that every worker must be able to read."""

    def work(self, jobs: Iterable[Any], tell: Callable[[Any], None]) -> Any:
        """Do the jobs in this process; `tell` sends events to the parent. Returns the worker's result."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerOrder:
    """An `Order` to compute shards with a teacher."""

    store: Path
    recipe: TeacherRecipe
    settings: WorkSettings

    @property
    def kept(self) -> str:
        return "committed shards are kept: run the command again (`extract` with --resume)"

    @property
    def writes(self) -> Path | None:
        return self.store

    @property
    def has_processes(self) -> bool:
        return self.settings.decode_in == "processes"

    def for_worker(self, number: int) -> "WorkerOrder":
        return replace(self, recipe=self.recipe.for_worker(number))

    def needs(self) -> dict[str, int]:
        decoders = self.settings.decode_workers if self.has_processes else 0
        if self.recipe.device.startswith("cuda"):
            return {"num_gpus": 1, "num_cpus": 1 + decoders}
        return {"num_cpus": StoreWriter(self.store).header.threads + decoders}

    def files(self, jobs: Sequence[ShardJob]) -> list[Path]:
        images = [source.path for job in jobs[:1] for source in job.images]
        return images if self.recipe.weights.startswith(HUB_PREFIX) else [*images, Path(self.recipe.weights)]

    def work(self, jobs: Iterable[ShardJob], tell: Tell) -> Any:
        return compute_shards(self.recipe.load(), StoreWriter(self.store), jobs, tell, self.settings)


@dataclass(frozen=True, slots=True)
class _JobRequest:
    """A worker requests its next job."""


@dataclass(frozen=True, slots=True)
class Broken:
    """The error that ended a worker; errors that callers handle keep their class."""

    error: Exception


@dataclass(frozen=True, slots=True)
class _Done:
    """A worker has no more jobs."""

    result: Any


def run_workers(order: Order, jobs: Iterable[Any], tell: Callable[[Any], None], workers: int) -> list[Any]:
    """Do all jobs with `workers` processes; `tell` is called only from this thread. Returns the workers' results.

    Raises:
        StoreError: a worker was killed.
        Exception: the error of a worker; all others are stopped, and their commits are kept.
    """
    pool = _Pool(order, workers)
    try:
        return pool.run(iter(jobs), tell)
    finally:
        pool.stop()


class _Pool:
    """The parent's side."""

    def __init__(self, order: Order, workers: int) -> None:
        context = start_context(type(order).__module__)
        self._kept = order.kept
        self._workers: dict[Connection, BaseProcess] = {}
        self._done: set[Connection] = set()
        for number in range(workers):
            ours, theirs = context.Pipe()
            own_order = order.for_worker(number)
            process = context.Process(
                target=_work,
                args=(theirs, own_order),
                name=f"medalign-worker-{number}",
                daemon=not own_order.has_processes,
            )
            process.start()
            theirs.close()
            self._workers[ours] = process

    def run(self, jobs: Iterator[Any], tell: Callable[[Any], None]) -> list[Any]:
        results: list[Any] = []
        while working := [connection for connection in self._workers if connection not in self._done]:
            for connection in wait(working):
                assert isinstance(connection, Connection)
                message = self._receive(connection)
                if isinstance(message, _JobRequest):
                    _send(connection, next(jobs, None))
                elif isinstance(message, Broken):
                    raise message.error
                elif isinstance(message, _Done):
                    results.append(message.result)
                    self._done.add(connection)
                else:
                    tell(message)
        return results

    def _receive(self, connection: Connection) -> Any:
        try:
            return connection.recv()
        except (EOFError, ConnectionResetError):
            end, killed_by = how_it_ended(self._workers[connection])
            memory = " (out of memory?)" if killed_by == signal.SIGKILL else ""
            raise StoreError(f"{end}{memory}; {self._kept}, with fewer --workers where memory is short") from None

    def stop(self) -> None:
        """Ask all running workers to stop, then terminate those that do not."""
        for connection, process in self._workers.items():
            if connection not in self._done:
                process.terminate()
        for connection, process in self._workers.items():
            process.join(_ENDS_WITHIN)
            if process.is_alive():
                process.kill()
                process.join()
            connection.close()


def _send(connection: Connection, job: Any) -> None:
    with suppress(BrokenPipeError):  # it has died, which reading from it reports
        connection.send(job)


def _work(connection: Connection, order: Order) -> None:
    """Main function of a worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of the terminal; the parent handles it
    signal.signal(signal.SIGTERM, _interrupt)
    channel = _Channel(connection)
    try:
        channel.send(_Done(order.work(channel.jobs(), channel.send)))
    except KeyboardInterrupt:
        pass
    except Exception as error:
        channel.send(Broken(portable(error)))
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


class _Channel:
    """A worker's side of the pipe. A thread reads it, so that the worker ends as soon as its parent dies."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._jobs: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._sending = threading.Lock()
        threading.Thread(target=self._listen, name="medalign-parent", daemon=True).start()

    def jobs(self) -> Iterator[Any]:
        """Request jobs one after the other until there are no more."""
        self.send(_JobRequest())
        while (job := self._jobs.get()) is not None:
            yield job
            self.send(_JobRequest())

    def send(self, message: Any) -> None:
        with self._sending:
            self._connection.send(message)

    def _listen(self) -> None:
        while True:
            try:
                self._jobs.put(self._connection.recv())
            except (EOFError, OSError):
                os._exit(1)
