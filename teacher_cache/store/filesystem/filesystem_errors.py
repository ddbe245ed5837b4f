"""Messages for file system errors that users can act on: permissions, read-only disks, full disks."""

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
from ....plain_text import size_text
from ..store_errors import NoPermission

FULL = (errno.ENOSPC, errno.EDQUOT)
_DENIED = (errno.EACCES, errno.EPERM)


@contextmanager
def reading(store: Path) -> Iterator[None]:
    """Distinguish missing permissions from damage; other errors pass through.

    Raises:
        NoPermission: the block was denied permission to read something.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _DENIED:
            raise NoPermission(explain(error, store)) from error
        raise


@contextmanager
def accessing(place: Path, kept: str = "") -> Iterator[None]:
    """Turn file system errors into one message; `kept` says what is not lost.

    Raises:
        StoreError: the block could not read or write something.
    """
    try:
        yield
    except OSError as error:
        raise store_error(error, place, kept) from error


def store_error(error: OSError, place: Path, kept: str = "") -> StoreError:
    """The error that users see; it names `place` if the original error names no path."""
    kind = NoPermission if error.errno in (*_DENIED, errno.EROFS) else StoreError
    return kind(explain(error, place, kept))


def explain(error: OSError, place: Path, kept: str = "") -> str:
    """What went wrong, where, what is kept, and what to do."""
    path, reason = _path(error, place), error.strerror or str(error)
    what, advice = reason, ""
    if error.errno in _DENIED:
        what = f"{reason}: {_owner_and_user(path)}"
        advice = "Get permission from the owner (chmod) or work on a copy, then run the command again."
    elif error.errno == errno.EROFS:
        what, advice = f"{reason}: the disk is read-only", "Work on a copy on another disk."
    elif error.errno in FULL:
        full = "the disk is full" if error.errno == errno.ENOSPC else "your disk quota is used up"
        room = f" ({size_text(free_bytes(path))} are free)" if error.errno == errno.ENOSPC else ""
        what, advice = f"{reason}: {full}", f"Free some space{room}, then run the command again."
    elif error.errno == errno.EISDIR:
        what = f"{reason}: a folder is in the place of a file"
        advice = "Move it away, then run the command again."
    return " ".join(filter(None, [f"{path}: {what}.", kept, advice]))


def free_bytes(folder: Path) -> int:
    """Free bytes for this user on the disk of a folder, which need not exist yet."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _path(error: OSError, place: Path) -> Path:
    """The path that the error is about; for a temporary file, its folder, which users can look at."""
    name = error.filename if isinstance(error.filename, str) else None
    path = place if name is None else Path(name)
    return path.parent if is_temporary(path.name) else path


def _owner_and_user(path: Path) -> str:
    """Owner and mode of the first folder of a path that cannot be entered, or else of the path, and this user."""
    denied = Path()
    for part in (*reversed(path.absolute().parents), path.absolute()):
        if not os.path.lexists(part):
            break
        denied = part
        if part.is_dir() and not os.access(part, os.X_OK, effective_ids=True):
            break
    status = denied.stat()
    owner = f"{stat.filemode(status.st_mode)}, owner {_user(status.st_uid)}"
    return f"{denied} is {owner}, and this process is user {_user(os.geteuid())}"


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)
