"""Computing with Ray actors, on one machine or a cluster; they request jobs from a small actor, the board."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...atomic import AtomicFile
from ...errors import SettingsError, StoreError
from ...plain_text import counted
from ...progress import Progress
from .messages import portable
from .pool import Broken, Order

_POLL = 0.3
"""Seconds between polls of the board for progress."""


def run_actors(
    order: Order, jobs: Sequence[Any], tell: Callable[[Any], None], workers: int, progress: Progress
) -> list[Any]:
    """Do all jobs with `workers` actors, on the cluster of RAY_ADDRESS or else on this machine; returns their results.

    Raises:
        SettingsError: Ray is not installed, or the cluster has too few CPUs or GPUs for the workers.
        StoreError: a node cannot see the files that it needs, or an actor died.
        Exception: the error of an actor; all others are stopped, and their commits are kept.
    """
    needs = order.needs()
    with _connected(workers * needs["num_cpus"]) as ray:
        _check_resources(ray, needs, workers)
        board = ray.remote(num_cpus=0)(_Board).remote(list(jobs))
        actors = [ray.remote(**needs)(_Actor).remote(order, board) for _ in range(workers)]
        progress.note(f"Ray: {counted(workers, 'worker')} on {counted(len(ray.nodes()), 'node')}")
        try:
            _check_files(ray, actors, order, jobs)
            return _watch(ray, board, [actor.run.remote() for actor in actors], tell)
        except ray.exceptions.RayActorError as error:
            raise StoreError(f"a Ray worker died ({str(error).splitlines()[0]}); {order.kept}") from error
        finally:
            for actor in (*actors, board):
                ray.kill(actor)


@contextmanager
def _connected(cpus: int) -> Iterator[Any]:
    """Connect to Ray; an existing connection is used and kept."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no usage statistics are sent
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError:
        raise SettingsError("--engine ray requires Ray: pip install 'medalign[ray]'") from None
    if ray.is_initialized():
        yield ray
        return
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        if os.environ.get("RAY_ADDRESS"):
            ray.init(address="auto", **quiet)
        else:
            ray.init(address="local", num_cpus=cpus, include_dashboard=False, **quiet)
    except Exception as error:  # Ray also raises bare Exceptions if its processes do not start in time
        address = os.environ.get("RAY_ADDRESS", "this machine")
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise SettingsError(f"cannot connect to Ray or start it at {address}: {reason}") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _check_resources(ray: Any, needs: dict[str, int], workers: int) -> None:
    resources = ray.cluster_resources()
    for option, name in (("num_gpus", "GPU"), ("num_cpus", "CPU")):
        needed, available = workers * needs.get(option, 0), resources.get(name, 0)
        if needed > available:
            raise SettingsError(
                f"{workers} workers need {needed} {name}s, but the Ray cluster has {available:g}: use fewer --workers"
            )


def _check_files(ray: Any, actors: Sequence[Any], order: Order, jobs: Sequence[Any]) -> None:
    """Check that all workers see the files that they read, and the folder that they write to, under the same paths.

    Raises:
        StoreError: a worker does not. Without this check it would record its images as failed.
    """
    probe_file = None if order.writes is None else AtomicFile(order.writes)
    probe = None if probe_file is None else probe_file.temporary
    paths = order.files(jobs)
    if probe is not None:
        paths = [probe, *paths]
    existing = [path.absolute() for path in paths if path.exists()]
    try:
        for host, absent in ray.get([actor.absent.remote(existing) for actor in actors]):
            if absent:
                expected = probe.parent if probe and absent[0] == probe.absolute() else absent[0]
                raise StoreError(
                    f"Ray node {host} cannot see {expected}: the store, images and weights must be on a file system "
                    "that all nodes share, under the same path"
                )
    finally:
        if probe_file is not None:
            probe_file.abort()


def _watch(ray: Any, board: Any, running: list[Any], tell: Callable[[Any], None]) -> list[Any]:
    results: list[Any] = []
    while running:
        done, running = ray.wait(running, timeout=_POLL)
        ended = ray.get(done)
        for event in ray.get(board.drain.remote()):
            tell(event)
        for result in ended:
            if isinstance(result, Broken):
                raise result.error
            results.append(result)
    return results


class _Board:
    """Assigns jobs and collects events. It is a separate actor, so that the driver may be busy."""

    def __init__(self, jobs: list[Any]) -> None:
        self._jobs = deque(jobs)
        self._events: list[Any] = []

    def next_job(self) -> Any:
        return self._jobs.popleft() if self._jobs else None

    def tell(self, event: Any) -> None:
        self._events.append(event)

    def drain(self) -> list[Any]:
        events, self._events = self._events, []
        return events


class _Actor:
    """One worker."""

    def __init__(self, order: Order, board: Any) -> None:
        self._order, self._board = order, board

    def absent(self, paths: list[Path]) -> tuple[str, list[Path]]:
        """This machine's name, and the paths that it cannot see."""
        return os.uname().nodename, [path for path in paths if not path.exists()]

    def run(self) -> Any:
        try:
            return self._order.work(self._jobs(), self._tell)
        except Exception as error:
            return Broken(portable(error))

    def _jobs(self) -> Iterator[Any]:
        import ray

        while (job := ray.get(self._board.next_job.remote())) is not None:
            yield job

    def _tell(self, event: Any) -> None:
        import ray

        ray.get(self._board.tell.remote(event))  # waits, so that events stay in order and do not pile up
