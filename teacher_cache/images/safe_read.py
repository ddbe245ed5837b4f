"""Reading a file that might be anything: a pipe, a device, a loop of links, a sparse terabyte. Never hangs on one."""

import os
import stat
from pathlib import Path

from .image_errors import UnreadableImage

MAX_BYTES = 512 * 1024**2
"""80 million pixels of 16-bit RGB, uncompressed: nothing larger is one image."""

_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)
"""Without O_NONBLOCK the mere opening of a pipe waits for a writer."""

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def read_image_bytes(path: Path) -> bytes:
    """All bytes of a regular file of at most `MAX_BYTES`.

    Raises:
        UnreadableImage: it does not exist, is no regular file, too large, or cannot be read.
    """
    try:
        _require_regular(path.stat().st_mode)  # some devices do something when they are merely opened
        with os.fdopen(os.open(path, _FLAGS), "rb") as file:
            found = os.fstat(file.fileno())
            _require_regular(found.st_mode)
            if found.st_size > MAX_BYTES:
                raise UnreadableImage(f"{found.st_size} bytes, more than the {MAX_BYTES} that one image may have")
            data = file.read(found.st_size + 1)
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise UnreadableImage(_why(path, error)) from error
    if len(data) != found.st_size:
        raise UnreadableImage("the file changed while it was read")
    return data


def read_head(path: Path, size: int) -> bytes:
    """The first `size` bytes of a regular file, fewer where it is shorter; nothing of what cannot be read."""
    try:
        _require_regular(path.stat().st_mode)
        with os.fdopen(os.open(path, _FLAGS), "rb") as file:
            return file.read(size)
    except (OSError, ValueError, UnreadableImage):
        return b""


def _require_regular(mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "something else")
        raise UnreadableImage(f"{kind}, not a regular file")


def _why(path: Path, error: OSError | ValueError) -> str:
    """In words; the error's own text would name the path."""
    if isinstance(error, FileNotFoundError) and path.is_symlink():
        return "a link to a file that does not exist"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read: {error.strerror}"
    return "cannot be read: its name is not one that a file can have"
