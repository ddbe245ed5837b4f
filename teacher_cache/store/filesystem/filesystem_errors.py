"""Errors of the file system as users of a store can act on them: permission, read-only disks, full disks."""

import errno
import os
import pwd
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ....atomic import is_temporary
from ....errors import StoreError
from ..store_errors import NoPermission

FULL = (errno.ENOSPC, errno.EDQUOT)
_DENIED = (errno.EACCES, errno.EPERM)


@contextmanager
def reading(store: Path) -> Iterator[None]:
    """Tell a lack of permission from damage; other errors pass.

    Raises:
        NoPermission: the block may not read something.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _DENIED:
            raise NoPermission(explain(error, store)) from error
        raise


@contextmanager
def accessing(place: Path, kept: str = "") -> Iterator[None]:
    """Turn errors of the file system into one sentence; `kept` says what is not lost.

    Raises:
        StoreError: the block could not read or write something.
    """
    try:
        yield
    except OSError as error:
        raise store_error(error, place, kept) from error


def store_error(error: OSError, place: Path, kept: str = "") -> StoreError:
    """The error that users see; `place` is named where the error itself names nothing."""
    kind = NoPermission if error.errno in (*_DENIED, errno.EROFS) else StoreError
    return kind(explain(error, place, kept))


def explain(error: OSError, place: Path, kept: str = "") -> str:
    """What went wrong, where, what is kept, and what to do about it."""
    path, reason = _path(error, place), error.strerror or str(error)
    what, advice = reason, ""
    if error.errno in _DENIED:
        what = f"{reason}: {_who(path)}"
        advice = "Get permission from the owner (chmod), or work on a copy, and repeat the command."
    elif error.errno == errno.EROFS:
        what, advice = f"{reason}: the disk is read-only", "Work on a copy on another disk."
    elif error.errno in FULL:
        full = "the disk is full" if error.errno == errno.ENOSPC else "your quota of the disk is used up"
        room = f" ({free_bytes(path):,} bytes are free)" if error.errno == errno.ENOSPC else ""
        what, advice = f"{reason}: {full}", f"Free some space{room}, and repeat the command."
    elif error.errno == errno.EISDIR:
        what = f"{reason}: there is a folder where a file is to be"
        advice = "Move it away, and repeat the command."
    return " ".join(filter(None, [f"{path}: {what}.", kept, advice]))


def free_bytes(folder: Path) -> int:
    """Bytes that this user may still write at a folder, or where it would be."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _path(error: OSError, place: Path) -> Path:
    """What the error is about; of a temporary file its folder, which is what users can look at."""
    name = error.filename if isinstance(error.filename, str) else None
    path = place if name is None else Path(name)
    return path.parent if is_temporary(path.name) else path


def _who(path: Path) -> str:
    """Owner and mode of the first part of a path that may not be entered, else of its last; and who this process is."""
    seen = Path()
    for part in (*reversed(path.absolute().parents), path.absolute()):
        if not os.path.lexists(part):
            break
        seen = part
        if part.is_dir() and not os.access(part, os.X_OK, effective_ids=True):
            break
    status = seen.stat()
    whose = f"{stat.filemode(status.st_mode)}, owner {_user(status.st_uid)}"
    return f"{seen} is {whose}, and this process is user {_user(os.geteuid())}"


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)
