"""Who may write what: byte-range locks on one small file inside a store, released by the system when their holder dies.

POSIX locks, because network file systems between the nodes of a cluster know them. They belong to a process: they do
not conflict within it, and closing any descriptor of the file drops them all. Hence one descriptor per lock file and
process, and a register of what this process holds.
"""

import errno
import fcntl
import os
import threading
import time
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
"""Byte n says that a process is writing shard n, byte _OWNERS + n that a run has undertaken to; n is below _OWNERS."""
_ORPHANS_END_WITHIN = 15.0
"""Seconds; the workers of a dead run notice it at once, Ray takes a moment."""

_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""Through no link, and without waiting for a pipe."""

Span = tuple[int, int]
"""First byte and length."""


class RunLock:
    """Held by the process that coordinates a run: nobody else may undertake the same shards.

    `shards` are those of this run, `None` for all there are and will be; runs of other shards live side by side.
    """

    def __init__(self, store: Path, shards: Sequence[int] | None = None) -> None:
        self._store = store
        self._whole = shards is None
        self._claim = _Claim(store / LOCK_FILE, _spans(_OWNERS, shards))
        self._writers = _Claim(store / LOCK_FILE, _spans(0, shards))

    def __enter__(self) -> "RunLock":
        """Take over what a dead run held.

        Raises:
            StoreError: another run lives, a process that a dead run left behind still writes, or the store holds a
                link or something else that no store does.
        """
        check_plain(self._store)
        if not self._claim.take(create=True):
            raise StoreInUse(
                f"another run is writing to {self._store}; wait for it or stop it, then repeat this command"
            )
        try:
            self._outlive_orphans()
        except BaseException:
            self._claim.drop(remove=False)
            raise
        return self

    def _outlive_orphans(self) -> None:
        deadline = time.monotonic() + _ORPHANS_END_WITHIN
        while not self._writers.take(create=False):
            if time.monotonic() > deadline:
                raise StoreError(
                    f"a worker of an earlier run still writes to {self._store}, though that run has ended; stop it, "
                    "then repeat this command"
                )
            time.sleep(0.05)
        self._writers.drop(remove=False)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._claim.drop(remove=self._whole)


class ShardLock:
    """Held by whichever process is writing one shard."""

    def __init__(self, store: Path, shard: int) -> None:
        self._store, self._shard = store, shard
        self._claim = _Claim(store / LOCK_FILE, [(shard, 1)])

    def __enter__(self) -> "ShardLock":
        """Raises StoreError where another process writes this shard, or the run has ended without this worker."""
        try:
            taken = self._claim.take(create=False)
        except FileNotFoundError:
            raise StoreError(f"the run that wrote to {self._store} has ended; this worker stops") from None
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
    """The one descriptor of a lock file in this process, and what is locked through it."""

    descriptor: int
    spans: list[Span] = field(default_factory=list)


_files: dict[tuple[int, int], _OpenFile] = {}
"""By device and inode."""
_guard = threading.Lock()
os.register_at_fork(after_in_child=_files.clear)  # a forked child holds none of its parent's locks


class _Claim:
    """Spans of one lock file, taken all or not at all."""

    def __init__(self, path: Path, spans: list[Span]) -> None:
        self._path, self._spans = path, spans
        self._key: tuple[int, int] | None = None

    def take(self, *, create: bool) -> bool:
        """Lock all spans at once, without waiting; False where somebody holds one of them.

        Raises:
            FileNotFoundError: there is no lock file and `create` is false.
            StoreError: the file cannot be opened, or its file system has no locks.
        """
        with _guard:
            while True:
                key, file = _open_file(self._path, create)
                try:
                    if not self._lock(file):
                        return False
                    if _inode(self._path) == key:  # else its holder removed it while we were opening it
                        file.spans += self._spans
                        self._key = key
                        return True
                    _unlock(file, self._spans)
                finally:
                    _close_unused(key, file)

    def drop(self, *, remove: bool) -> None:
        """Unlock; with `remove` delete the file first, so that nobody can lock it in between."""
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
    if create:
        with suppress(FileExistsError):
            descriptor = os.open(path, _FLAGS | os.O_CREAT | os.O_EXCL, 0o666)
            restrict(descriptor, path.parent.stat().st_mode & 0o666)
            return descriptor
    return os.open(path, _FLAGS | (os.O_CREAT if create else 0), 0o666)


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
