"""The same work by Ray actors, on one machine or on a cluster; they ask a small actor, the board, for jobs."""

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
"""Seconds between looks at the board, for progress."""


def run_actors(
    order: Order, jobs: Sequence[Any], tell: Callable[[Any], None], workers: int, progress: Progress
) -> list[Any]:
    """Do all jobs with so many actors: on the cluster of RAY_ADDRESS, else on this machine; returns their results.

    Raises:
        SettingsError: Ray is not installed, or the cluster has too few CPUs or GPUs for so many workers.
        StoreError: a node does not see the files that it needs, or an actor died.
        Exception: what went wrong in an actor; all others are stopped, what they committed stays.
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
    """Ray, connected; a cluster that somebody else connected to stays connected."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anyone
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError:
        raise SettingsError("--engine ray needs Ray: pip install 'medalign[ray]'") from None
    if ray.is_initialized():
        yield ray
        return
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        if os.environ.get("RAY_ADDRESS"):
            ray.init(address="auto", **quiet)
        else:
            ray.init(address="local", num_cpus=cpus, include_dashboard=False, **quiet)
    except Exception as error:  # Ray raises bare ones too, where its processes do not start in time
        place = os.environ.get("RAY_ADDRESS", "this machine")
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise SettingsError(f"Ray cannot be reached or started at {place}: {reason}") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _check_resources(ray: Any, needs: dict[str, int], workers: int) -> None:
    there = ray.cluster_resources()
    for option, name in (("num_gpus", "GPU"), ("num_cpus", "CPU")):
        wanted, present = workers * needs.get(option, 0), there.get(name, 0)
        if wanted > present:
            raise SettingsError(
                f"{workers} workers need {wanted} {name}s, the Ray cluster has {present:g}: give fewer --workers"
            )


def _check_files(ray: Any, actors: Sequence[Any], order: Order, jobs: Sequence[Any]) -> None:
    """Every worker must see the files that it reads, and the folder that it writes, where this process sees them.

    Raises:
        StoreError: one does not; without this check it would record its images as failed.
    """
    held = None if order.writes is None else AtomicFile(order.writes)
    probe = None if held is None else held.temporary
    paths = order.files(jobs)
    if probe is not None:
        paths = [probe, *paths]
    wanted = [path.absolute() for path in paths if path.exists()]
    try:
        for host, absent in ray.get([actor.absent.remote(wanted) for actor in actors]):
            if absent:
                seen_here = probe.parent if probe and absent[0] == probe.absolute() else absent[0]
                raise StoreError(
                    f"Ray's node {host} does not see {seen_here}: store, images and weights must be on a file system "
                    "that all nodes share, under the same path"
                )
    finally:
        if held is not None:
            held.abort()


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
    """Hands out jobs and collects events; an actor of its own, so the driver may be busy."""

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
        """This machine's name, and which of some paths it does not see."""
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

        ray.get(self._board.tell.remote(event))  # in order, and not more than the board can take
