"""Atomic creation of files and folders, under temporary names that only medalign uses.

Every package may import this module. A temporary file is created exclusively beside its target, never through a link,
and is locked while its writer lives. The lock distinguishes a leftover of a killed command from a file in use; the
name distinguishes it from a user's own `*.partial`.
"""

import errno
import fcntl
import hashlib
import os
import re
import secrets
import shutil
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final

from .errors import InputError
from .file_kinds import FOLDER, kind_of

_OWN: Final = re.compile(r"\..*\.medalign-[0-9a-f]{16}\.partial", re.DOTALL)
_LONGEST_NAME: Final = 255
"""Longest file name that file systems allow, in bytes."""
_LONGEST_STEM: Final = 200
"""Longest part of the target's name in a temporary name, in bytes."""
_LOCK: Final = ".lock"
"""File in a temporary folder that its writer keeps locked."""

_Inode = tuple[int, int]

_live: set[_Inode] = set()
"""Temporary files of this process; POSIX locks do not exclude the process that holds them."""
_guard = threading.Lock()


def _forget() -> None:
    """Clear the table in a forked child, which writes none of its parent's files."""
    global _guard
    _guard = threading.Lock()
    _live.clear()


os.register_at_fork(after_in_child=_forget)


def temporary_path(target: Path) -> Path:
    """A new temporary name beside `target`."""
    return target.with_name(f".{_stem(target.name)}.medalign-{secrets.token_hex(8)}.partial")


def beside(target: Path, start: str, end: str) -> Path:
    """The path in the same folder with `start` and `end` around the name; deterministic.

    A name that would be longer than file systems allow is truncated, and a digest of it is appended.
    """
    name = target.name
    if len(os.fsencode(f"{start}{name}{end}")) > _LONGEST_NAME:
        digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
        name = f"{_stem(name, _LONGEST_NAME - len(start) - len(end) - len(digest) - 1)}~{digest}"
    return target.with_name(f"{start}{name}{end}")


def is_temporary(name: str) -> bool:
    """Whether this is the name of a temporary file or folder of medalign."""
    return _OWN.fullmatch(name) is not None


class AtomicFile:
    """A new file that replaces `path` when it is complete and on disk.

    Use as a context manager, or call `commit` or `abort`. After a crash at any moment `path` is either the old file or
    the new one, and at most a temporary file remains, which `remove_leftovers` finds.
    """

    def __init__(self, path: Path, mode: int | None = None) -> None:
        """Create the temporary file; `mode` is its exact permission bits, by default those of the umask.

        Raises:
            InputError: `path` is a pipe, a socket or a device, or a link to one.
            OSError: The folder does not exist or cannot be written.
        """
        check_replaceable(path)
        self.path = path
        self.temporary, descriptor = _create(path, 0o666 if mode is None else mode)
        self._inode = _inode(os.fstat(descriptor))
        self.file: BinaryIO = os.fdopen(descriptor, "w+b")
        if mode is not None:
            restrict(descriptor, mode)

    def commit(self) -> None:
        """Flush the file to disk, then rename it to `path`.

        Raises:
            OSError: The file cannot be written; the temporary file is removed.
        """
        try:
            self.file.flush()
            os.fsync(self.file.fileno())
            self.temporary.replace(self.path)  # before it is closed, which drops its lock
            self.file.close()
        except BaseException:
            self.abort()
            raise
        _live.discard(self._inode)
        sync_folder(self.path.parent)

    def abort(self) -> None:
        """Remove the temporary file."""
        with suppress(OSError):  # buffered data may not fit on the disk
            self.file.close()
        self.temporary.unlink(missing_ok=True)
        _live.discard(self._inode)

    def __enter__(self) -> BinaryIO:
        return self.file

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.commit()
        else:
            self.abort()


def check_replaceable(path: Path) -> None:
    """Check that a new file at `path` would replace only a regular file, or a link to one.

    Raises:
        InputError: `path` is a pipe, a socket or a device, a link to one, or a link into /proc such as /dev/stdout.
    """
    try:
        special = kind_of(path.stat().st_mode)
    except OSError:  # missing, or the caller's next step reports why
        special = None
    if special == FOLDER:  # renaming the new file reports it
        special = None
    if path.is_symlink():
        target = os.readlink(path)  # noqa: PTH115 (as it is written)
        if target.startswith("/proc/"):
            special = f"a link to {target}"
        elif special is not None:
            special = f"a link to {special}"
    if special is not None:
        raise InputError(
            f"{path} is {special}, and a new file would replace it. Results are written only as regular files: "
            "pass another name"
        )


def write_whole(path: Path, text: str) -> None:
    """Write a small text file atomically, and remove what killed commands left of it.

    Raises:
        InputError: `path` is a pipe, a socket or a device, or a link to one.
        OSError: The file cannot be written.
    """
    remove_leftovers(path)
    with AtomicFile(path) as file:
        file.write(text.encode())


def write_new(path: Path, data: bytes, mode: int | None = None) -> None:
    """Write a small file atomically, unless something exists at `path`. Of concurrent calls one writes.

    Raises:
        FileExistsError: There is something at `path`, even a link to a missing file.
        OSError: The file cannot be written.
    """
    remove_leftovers(path)
    if os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    new = AtomicFile(path, mode)
    try:
        new.file.write(data)
        new.file.flush()
        os.fsync(new.file.fileno())
        try:
            path.hardlink_to(new.temporary)
        except FileExistsError:
            raise
        except OSError:  # the file system has no links
            _commit_claimed(new)
    finally:
        new.abort()
    sync_folder(path.parent)


def append(path: Path, text: str) -> None:
    """Append to a text file, which may be missing; the text is on disk when this returns.

    Raises:
        InputError: `path` is a pipe, a socket or a device, or a link to one.
        OSError: The file cannot be written.
    """
    check_replaceable(path)
    is_new = not path.exists()
    with path.open("a", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    if is_new:
        sync_folder(path.parent)


@contextmanager
def new_folder(out: Path, mode: int | None = None) -> Iterator[Path]:
    """A temporary folder beside `out` that is renamed to `out` when the block ends without an error.

    `out` may be an empty folder. What killed commands left of the same folder is removed.

    Raises:
        OSError: The folder cannot be written, or `out` is in use; nothing is left behind.
    """
    remove_leftovers(out)
    building, lock = _make_folder(out, mode)
    try:
        yield building
        sync_tree(building)
        (building / _LOCK).unlink()
        sync_folder(building)
        building.rename(out)
    except BaseException:
        remove_tree(building)
        raise
    finally:
        _live.discard(_inode(os.fstat(lock)))
        os.close(lock)
    sync_folder(out.parent)


def remove_leftovers(target: Path) -> list[Path]:
    """Remove the temporary files and folders of `target` whose writers died; return those that remain.

    Those are in use, or may be.
    """
    start = f".{_stem(target.name)}.medalign-"
    try:
        names = [entry.name for entry in os.scandir(target.parent) if entry.name.startswith(start)]
    except FileNotFoundError:
        return []
    found = [target.with_name(name) for name in sorted(names) if is_temporary(name)]
    return [path for path in found if not remove_dead(path)]


def leftover_notes(target: Path) -> list[str]:
    """Remove the leftovers of `target`; return one sentence about each that only the user can judge.

    Those are complete folders without a lock. Locked ones are in use and are not reported.
    """
    return [
        f"{path} is being written by another command, or was left by a killed one; in that case delete it"
        for path in remove_leftovers(target)
        if path.is_dir() and not (path / _LOCK).exists()
    ]


def remove_dead(temporary: Path) -> bool:
    """Remove a temporary file or folder unless its writer lives; return whether it is gone."""
    try:
        status = temporary.lstat()
        if stat.S_ISDIR(status.st_mode):
            return _remove_dead_folder(temporary)
        return stat.S_ISREG(status.st_mode) and _remove_unlocked(temporary)
    except FileNotFoundError:
        return True


def remove_tree(folder: Path) -> None:
    """Remove a temporary folder, its lock last, so that what a crash leaves is recognized; ignore errors."""
    with suppress(OSError):
        for entry in list(os.scandir(folder)):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            elif entry.name != _LOCK:
                Path(entry.path).unlink(missing_ok=True)
        (folder / _LOCK).unlink(missing_ok=True)
        folder.rmdir()


def restrict(place: int | Path, mode: int) -> None:
    """Set exactly these permission bits on a new file or folder, regardless of the umask.

    No-op on file systems without permissions.
    """
    status = os.stat(place)  # noqa: PTH116 (accepts a descriptor)
    if stat.S_IMODE(status.st_mode) & 0o777 != mode:
        with suppress(PermissionError, NotImplementedError):
            os.chmod(place, stat.S_IMODE(status.st_mode) & ~0o777 | mode)  # noqa: PTH101


def sync_files(folder: Path) -> None:
    """Flush the files directly in a folder, and the folder itself, to disk."""
    for path in (*(path for path in folder.iterdir() if path.is_file()), folder):
        sync_folder(path)


def sync_tree(folder: Path) -> None:
    """Flush a small folder and everything in it to disk."""
    for path in (*folder.rglob("*"), folder):
        sync_folder(path)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _stem(name: str, most: int = _LONGEST_STEM) -> str:
    """The first bytes of a name, cut between characters if it is text."""
    cut = os.fsencode(name)[:most]
    with suppress(UnicodeEncodeError):
        name.encode()
        return cut.decode(errors="ignore")
    return os.fsdecode(cut)


def _commit_claimed(new: AtomicFile) -> None:
    """Commit a file whose name has been claimed with an empty file, which only one process can create."""
    os.close(os.open(new.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        new.commit()
    except BaseException:
        new.path.unlink(missing_ok=True)
        raise


def _create(target: Path, mode: int) -> tuple[Path, int]:
    """Create and lock a temporary file; retry if another process removes it as a leftover in between."""
    while True:
        path = temporary_path(target)
        descriptor = _create_locked(path, mode)
        if descriptor is not None:
            return path, descriptor


def _create_locked(path: Path, mode: int) -> int | None:
    """The descriptor of a new, locked file; `None` if another process was faster and removes it as a leftover."""
    with _guard:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        _live.add(_inode(os.fstat(descriptor)))
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_ours = True
    except OSError as error:  # without locks, leftovers and files in use look the same
        is_ours = error.errno not in (errno.EAGAIN, errno.EACCES)
    with suppress(FileNotFoundError):
        if is_ours and _inode(path.lstat()) == _inode(os.fstat(descriptor)):
            return descriptor
    _live.discard(_inode(os.fstat(descriptor)))
    os.close(descriptor)
    return None


def _make_folder(out: Path, mode: int | None) -> tuple[Path, int]:
    """A new temporary folder and the descriptor of the lock in it; retries if the folder is removed in between."""
    while True:
        building = temporary_path(out)
        building.mkdir(mode=0o777 if mode is None else mode)
        try:
            if mode is not None:
                restrict(building, mode)
            lock = _create_locked(building / _LOCK, 0o600)
        except FileNotFoundError:
            continue  # it was empty, and was removed as a leftover
        except BaseException:
            remove_tree(building)
            raise
        if lock is not None:
            return building, lock


def _remove_dead_folder(folder: Path) -> bool:
    """Remove a folder without a lock if it is empty; else it is complete, and may be about to be renamed."""
    if not (folder / _LOCK).is_file():
        with suppress(OSError):
            folder.rmdir()
            return True
        return False
    descriptor = _lock(folder / _LOCK)
    if descriptor is None:
        return False
    try:
        remove_tree(folder)
    finally:
        os.close(descriptor)
    return not folder.exists()


def _remove_unlocked(file: Path) -> bool:
    descriptor = _lock(file)
    if descriptor is None:
        return False
    try:
        file.unlink(missing_ok=True)
    finally:
        os.close(descriptor)
    return True


def _lock(file: Path) -> int | None:
    """A descriptor that locks the file; `None` if its writer lives or it cannot be opened."""
    with _guard:
        try:
            if _inode(file.lstat()) in _live:
                return None
            descriptor = os.open(file, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _inode(status: os.stat_result) -> _Inode:
    return status.st_dev, status.st_ino
