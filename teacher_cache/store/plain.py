"""A store holds plain files and folders: a link in one from a stranger may lead to any file of its reader."""

import errno
import os
import stat
from pathlib import Path

from ...errors import StoreError
from .trouble import reading

_WHAT = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def check_plain(store: Path) -> None:
    """Check that nothing below a store's folder is a link, a pipe, a socket or a device.

    The path of the store itself may be a link: whoever gives it made it. Names are looked at, nothing is opened.

    Raises:
        StoreError: something is, or a folder may not be listed.
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
        StoreError: it is something else.
        OSError: it cannot be opened.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        raise_for_kind(Path(path))
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise_for_kind(Path(path))
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    return descriptor


def raise_for_kind(path: Path) -> None:
    """Raise StoreError for what a store may not hold; nothing where it is a file, a folder, or gone."""
    try:
        kind = stat.S_IFMT(path.lstat().st_mode)
    except OSError:
        return
    if kind in _WHAT:
        raise StoreError(
            f"{path} is {_WHAT[kind]}, and a store holds plain files and folders only: replace it by a copy of what it "
            "stands for, or remove it"
        )
