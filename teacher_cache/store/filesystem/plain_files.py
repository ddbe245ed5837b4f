"""A store holds plain files and folders: a link in one from a stranger may lead to any file of its reader."""

import os
import re
import stat
from pathlib import Path

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
_WHAT = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


def check_plain(store: Path) -> None:
    """Check that nothing below a store's folder is a link, a pipe, a socket or a device, and no small file a folder.

    The path of the store itself may be a link: whoever gives it made it. Names are looked at, nothing is opened.

    Raises:
        NotAFile: something is.
        NoPermission: a folder may not be listed.
        OSError: a folder cannot be listed for another reason.
    """
    folders = [os.fspath(store)]
    while folders:
        folder = folders.pop()
        try:
            with reading(store):
                entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except (FileNotFoundError, NotADirectoryError):  # removed in this moment, or no store at all
            continue
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                if _is_small_file(os.path.relpath(entry.path, store)):
                    raise _not_a_file(Path(entry.path), "a folder")
                folders.append(entry.path)
            elif not entry.is_file(follow_symlinks=False):
                raise_for_kind(Path(entry.path))


def check_location(location: str) -> None:
    """The same for a store at a path; what is behind a URL has no links."""
    scheme, separator, path = location.partition("://")
    if not separator or scheme in ("file", "local"):
        check_plain(Path(path or location))


def open_plain(path: str | Path) -> int:
    """A descriptor for reading a regular file; waits for no pipe and follows no link.

    Raises:
        NotAFile: it is something else.
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
    """Raise NotAFile for what a store may not hold; nothing where it is a file, a folder, or gone."""
    try:
        mode = path.lstat().st_mode
    except OSError:
        return
    if not stat.S_ISDIR(mode):
        raise_unless_file(path, mode)


def raise_unless_file(path: Path, mode: int) -> None:
    """Raise NotAFile where something of this `st_mode` is no regular file."""
    if not stat.S_ISREG(mode):
        raise _not_a_file(path, _WHAT.get(stat.S_IFMT(mode), "no plain file"))


def _not_a_file(path: Path, what: str) -> NotAFile:
    if what == _WHAT[stat.S_IFLNK]:
        advice = "replace it by a copy of what it stands for, or remove it"
    else:
        advice = "move it away, and put the file back; `medalign teacher repair` restores what is lost"
    return NotAFile(f"{path} is {what}, and a store holds plain files there: {advice}")


def _is_small_file(key: str) -> bool:
    """Whether a path inside a store is that of a file other than a shard, or the name of one."""
    inside = Path(key)
    if inside.name == GROUP_FILE:
        return True
    return key in _FILES or _RECORD.fullmatch(inside.as_posix()) is not None
