"""A store contains only regular files and folders: a link in an untrusted store could point to any of the reader's
files."""

import os
import re
import stat
from pathlib import Path

from ....file_kinds import FOLDER, LINK, kind_of
from ..file_names import (
    CARD_FILE,
    CROISSANT_FILE,
    FAILURES_FILE,
    GROUP_FILE,
    INDEX_FILE,
    LEDGER_FOLDER,
    LOCK_FILE,
    MANIFEST_FILE,
    SIGNATURE_FILE,
)
from ..store_errors import NotAFile
from .filesystem_errors import reading

_FILES = {
    CARD_FILE,
    CROISSANT_FILE,
    FAILURES_FILE,
    GROUP_FILE,
    INDEX_FILE,
    LOCK_FILE,
    MANIFEST_FILE,
    SIGNATURE_FILE,
}
_RECORD = re.compile(rf"{LEDGER_FOLDER}/(\d{{6,}}|unreadable)\.json")


def check_plain(store: Path) -> None:
    """Check that a store contains no link, pipe, socket or device, and no folder in the place of a small file.

    The path of the store itself may be a link, because the user passes it. No file is opened.

    Raises:
        NotAFile: it contains one.
        NoPermission: a folder cannot be listed for lack of permission.
        OSError: a folder cannot be listed for another reason.
    """
    folders = [os.fspath(store)]
    while folders:
        folder = folders.pop()
        try:
            with reading(store):
                entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except (FileNotFoundError, NotADirectoryError):  # removed just now, or there is no store
            continue
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                if _is_small_file(os.path.relpath(entry.path, store)):
                    raise _not_a_file(Path(entry.path), FOLDER)
                folders.append(entry.path)
            elif not entry.is_file(follow_symlinks=False):
                raise_for_kind(Path(entry.path))


def check_location(location: str) -> None:
    """`check_plain` for a store at a path; a store behind a URL has no links."""
    scheme, separator, path = location.partition("://")
    if not separator or scheme in ("file", "local"):
        check_plain(Path(path or location))


def open_plain(path: str | Path) -> int:
    """Open a regular file for reading, without blocking on a pipe or following a link; returns the descriptor.

    Raises:
        NotAFile: it is not a regular file.
        OSError: it cannot be opened.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        raise_for_kind(Path(path))
        raise
    if not stat.S_ISREG(mode := os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise_unless_file(Path(path), mode)
    return descriptor


def raise_for_kind(path: Path) -> None:
    """Raise NotAFile if the path is neither a regular file nor a folder; do nothing if it does not exist."""
    try:
        mode = path.lstat().st_mode
    except OSError:
        return
    if not stat.S_ISDIR(mode):
        raise_unless_file(path, mode)


def raise_unless_file(path: Path, mode: int) -> None:
    """Raise NotAFile if this `st_mode` is not that of a regular file."""
    if (kind := kind_of(mode)) is not None:
        raise _not_a_file(path, kind)


def _not_a_file(path: Path, kind: str) -> NotAFile:
    if kind == LINK:
        advice = "replace it with a copy of the file it points to, or remove it"
    else:
        advice = "move it away and put the file back; `medalign store repair` restores a lost file"
    return NotAFile(f"{path} is {kind}, but a store has only regular files there: {advice}")


def _is_small_file(key: str) -> bool:
    """Whether a path inside a store is that of a small file: any file but a shard."""
    inside = Path(key)
    if inside.name == GROUP_FILE:
        return True
    return key in _FILES or _RECORD.fullmatch(inside.as_posix()) is not None
