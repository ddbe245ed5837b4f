"""Reading untrusted paths without blocking: pipes, devices, link loops and huge sparse files are rejected."""

import os
from pathlib import Path

from ...file_kinds import kind_of
from ...plain_text import size_text
from .image_errors import UnreadableImage

MAX_BYTES = 512 * 1024**2
"""Maximum file size: 80 million pixels of uncompressed 16-bit RGB."""

_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)
"""O_NONBLOCK, because opening a pipe would otherwise wait for a writer."""


def read_image_bytes(path: Path) -> bytes:
    """Read a regular file of at most `MAX_BYTES`.

    Raises:
        UnreadableImage: it does not exist, is not a regular file, is too large, or cannot be read.
    """
    try:
        _require_regular(path.stat().st_mode)  # opening some devices has side effects
        with os.fdopen(os.open(path, _FLAGS), "rb") as file:
            status = os.fstat(file.fileno())
            _require_regular(status.st_mode)
            if status.st_size > MAX_BYTES:
                raise UnreadableImage(
                    f"{size_text(status.st_size)}, more than the {size_text(MAX_BYTES)} that one image may have"
                )
            data = file.read(status.st_size + 1)
    except (OSError, ValueError) as error:  # ValueError: an impossible file name
        raise UnreadableImage(_reason(path, error)) from error
    if len(data) != status.st_size:
        raise UnreadableImage("the file changed while it was read")
    return data


def read_head(path: Path, size: int) -> bytes:
    """The first `size` bytes of a regular file, or fewer if it is shorter; empty if it cannot be read."""
    try:
        _require_regular(path.stat().st_mode)
        with os.fdopen(os.open(path, _FLAGS), "rb") as file:
            return file.read(size)
    except (OSError, ValueError, UnreadableImage):
        return b""


def _require_regular(mode: int) -> None:
    if (kind := kind_of(mode)) is not None:
        raise UnreadableImage(f"{kind}, not a regular file")


def _reason(path: Path, error: OSError | ValueError) -> str:
    """A reason in words without the path, which the error's own text contains."""
    if isinstance(error, FileNotFoundError) and path.is_symlink():
        return "a link to a file that does not exist"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read: {error.strerror}"
    return "cannot be read: its name is not one that a file can have"
