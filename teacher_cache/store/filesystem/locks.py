"""Write locks of a store: byte-range locks on one small file, released by the system when their holder dies.

They are POSIX locks, because the network file systems of clusters support those. POSIX locks belong to a process: they
do not conflict within it, and closing any descriptor of the file releases them all. So each process keeps one
descriptor per lock file and a table of the locks that it holds.
"""

import errno
import fcntl
import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from ....atomic import restrict
from ....errors import StoreError
from ..file_names import LOCK_FILE
from ..store_errors import StoreInUse
from .filesystem_errors import FULL, store_error
from .plain_files import check_plain, raise_for_kind

_OWNERS = 1 << 20
"""A lock on byte n means that a process is writing shard n; on byte _OWNERS + n, that a run owns shard n.
n is below _OWNERS."""
_ORPHANS_END_WITHIN = 15.0
"""Seconds. The workers of a dead run notice its death at once; Ray takes a moment."""
_ORPHANS_LOOK = 0.05
"""Seconds between attempts to lock what they write."""

_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""Follow no link, and do not block on a pipe."""

Span = tuple[int, int]
"""First byte and length."""


class RunLock:
    """The lock of the process that coordinates a run: no other run may own the same shards.

    `shards` are the shards of this run; `None` means all present and future ones. Runs with different shards can
    run at the same time.
    """

    def __init__(self, store: Path, shards: Sequence[int] | None = None) -> None:
        self._store = store
        self._whole = shards is None
        self._claim = _Claim(store / LOCK_FILE, _spans(_OWNERS, shards))
        self._writers = _Claim(store / LOCK_FILE, _spans(0, shards))

    def __enter__(self) -> "RunLock":
        """Acquire the lock, also from a run that has died.

        Raises:
            StoreError: another run is active, a worker of a dead run still writes, or the store contains a link or
                another special file.
        """
        check_plain(self._store)
        if not self._claim.take(create=True):
            raise StoreInUse(
                f"another run is writing to {self._store}; wait for it or stop it, then run this command again"
            )
        try:
            self._outlive_orphans()
        except BaseException:
            self._claim.drop(remove=False)
            raise
        return self

    def _outlive_orphans(self) -> None:
        from tenacity import RetryError, Retrying, retry_if_result, stop_after_delay, wait_fixed

        attempts = Retrying(
            retry=retry_if_result(lambda taken: not taken),
            stop=stop_after_delay(_ORPHANS_END_WITHIN),
            wait=wait_fixed(_ORPHANS_LOOK),
        )
        try:
            attempts(self._writers.take, create=False)
        except RetryError:
            raise StoreError(
                f"a worker of an earlier run is still writing to {self._store}, although that run has ended; stop "
                "it, then run this command again"
            ) from None
        self._writers.drop(remove=False)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._claim.drop(remove=self._whole)


class ShardLock:
    """The lock of the process that is writing one shard."""

    def __init__(self, store: Path, shard: int) -> None:
        self._store, self._shard = store, shard
        self._claim = _Claim(store / LOCK_FILE, [(shard, 1)])

    def __enter__(self) -> "ShardLock":
        """Acquire the lock. Raises StoreError if another process writes this shard, or this worker's run has ended."""
        try:
            taken = self._claim.take(create=False)
        except FileNotFoundError:
            raise StoreError(f"the run that was writing to {self._store} has ended; this worker stops") from None
        if not taken:
            raise StoreError(f"another process is writing shard {self._shard} of {self._store}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._claim.drop(remove=False)


def _spans(start: int, shards: Sequence[int] | None) -> list[Span]:
    if shards is None:
        return [(start, _OWNERS)]
    assert all(0 <= shard < _OWNERS for shard in shards)
    return [(start + shard, 1) for shard in shards]


@dataclass(slots=True)
class _OpenFile:
    """This process's only descriptor of a lock file, and the spans that it has locked."""

    descriptor: int
    spans: list[Span] = field(default_factory=list)


_files: dict[tuple[int, int], _OpenFile] = {}
"""Keyed by device and inode."""
_guard = threading.Lock()
os.register_at_fork(after_in_child=_files.clear)  # a forked child does not inherit its parent's locks


class _Claim:
    """Spans of one lock file, locked all together or not at all."""

    def __init__(self, path: Path, spans: list[Span]) -> None:
        self._path, self._spans = path, spans
        self._key: tuple[int, int] | None = None

    def take(self, *, create: bool) -> bool:
        """Lock all spans without waiting; False if one of them is locked already.

        Raises:
            FileNotFoundError: the lock file does not exist and `create` is false.
            StoreError: the file cannot be opened, or its file system does not support locks.
        """
        with _guard:
            while True:
                key, file = _open_file(self._path, create)
                try:
                    if not self._lock(file):
                        return False
                    if _inode(self._path) == key:  # otherwise its holder removed it while it was being opened
                        file.spans += self._spans
                        self._key = key
                        return True
                    _unlock(file, self._spans)
                finally:
                    _close_unused(key, file)

    def drop(self, *, remove: bool) -> None:
        """Unlock. With `remove`, delete the file first, so that no process can lock it in between."""
        assert self._key is not None
        with _guard:
            file = _files.get(self._key)
            if file is None:  # in a forked child
                return
            if remove:
                self._path.unlink(missing_ok=True)
            for span in self._spans:
                file.spans.remove(span)
            _unlock(file, self._spans)
            _close_unused(self._key, file)
            self._key = None

    def _lock(self, file: _OpenFile) -> bool:
        if any(_overlap(mine, held) for mine in self._spans for held in file.spans):
            return False
        for count, (start, length) in enumerate(self._spans):
            try:
                fcntl.lockf(file.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, length, start)
            except OSError as error:
                _unlock(file, self._spans[:count])
                if error.errno in (errno.EAGAIN, errno.EACCES):
                    return False
                raise StoreError(f"{self._path} cannot be locked: {error.strerror}") from error
        return True


def _open_file(path: Path, create: bool) -> tuple[tuple[int, int], _OpenFile]:
    known = _inode(path)
    if known in _files:
        return known, _files[known]
    try:
        descriptor = _open(path, create)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not create:
            raise
        raise_for_kind(path)
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, *FULL):
            raise store_error(error, path) from error
        raise StoreError(f"{path} cannot be locked: {error.strerror}") from error
    status = os.fstat(descriptor)
    key = (status.st_dev, status.st_ino)
    _files[key] = _OpenFile(descriptor)
    return key, _files[key]


def _open(path: Path, create: bool) -> int:
    while create:
        with suppress(FileExistsError):
            descriptor = os.open(path, _FLAGS | os.O_CREAT | os.O_EXCL, 0o666)
            restrict(descriptor, path.parent.stat().st_mode & 0o666)
            return descriptor
        with suppress(FileNotFoundError):  # its holder has just removed it
            return os.open(path, _FLAGS)
    return os.open(path, _FLAGS)


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        status = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_dev, status.st_ino


def _unlock(file: _OpenFile, spans: Sequence[Span]) -> None:
    for start, length in spans:
        fcntl.lockf(file.descriptor, fcntl.LOCK_UN, length, start)


def _close_unused(key: tuple[int, int], file: _OpenFile) -> None:
    if not file.spans:
        del _files[key]
        os.close(file.descriptor)


def _overlap(one: Span, other: Span) -> bool:
    return sum(one) > other[0] and sum(other) > one[0]
