"""One interface to a store's files, on a disk or behind a URL: readers request keys and ranges."""

import errno
import os
import stat
from collections.abc import Sequence
from io import BufferedReader
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self, runtime_checkable

import numpy as np

from ..filesystem.filesystem_errors import reading
from ..filesystem.plain_files import open_plain, raise_unless_file

Buffer = bytearray | memoryview

MOST_WHOLE: Final = 64 << 20
"""Largest file that is read whole, in bytes; a ledger record of 130,000 rows is smaller."""

Range = tuple[str, int, int]
"""Key of a file inside the store, first byte, number of bytes."""


@runtime_checkable
class OpenFile(Protocol):
    """A file that is open for reading, from any position."""

    def read(self, size: int = -1, /) -> bytes: ...

    def seek(self, offset: int, whence: int = 0, /) -> int: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


@runtime_checkable
class StoreFiles(Protocol):
    """Read access to the files of one store. A missing file raises FileNotFoundError. Survives pickling and forking."""

    @property
    def location(self) -> str:
        """The path or URL, as the caller passed it."""

    def read(self, key: str) -> bytes:
        """Read a whole small file. Raises OSError if it has more than `MOST_WHOLE` bytes."""

    def read_ranges(self, ranges: Sequence[Range]) -> Sequence[Buffer]:
        """Copies of parts of files, in the given order; shorter than requested if a file ends early."""

    def open(self, key: str) -> OpenFile:
        """A seekable file that fetches only what is read, for Parquet."""

    def size(self, key: str) -> int:
        """Size of a file in bytes."""

    def exists(self, key: str) -> bool:
        """Whether the file exists."""


class LocalFiles:
    """A store in a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._prefix = f"{path}{os.sep}"

    @property
    def location(self) -> str:
        return str(self.path)

    def read(self, key: str) -> bytes:
        with self.open(key) as file:
            data = file.read(MOST_WHOLE + 1)
        if len(data) > MOST_WHOLE:
            raise OSError(errno.EFBIG, f"is larger than {MOST_WHOLE} bytes", str(self.path / key))
        return data

    def read_ranges(self, ranges: Sequence[Range]) -> Sequence[Buffer]:
        with reading(self.path):
            return [_pread(self._prefix + key, start, length) for key, start, length in ranges]

    def open(self, key: str) -> BufferedReader:
        with reading(self.path):
            return os.fdopen(open_plain(self._prefix + key), "rb")

    def size(self, key: str) -> int:
        with reading(self.path):
            status = (self.path / key).lstat()
        raise_unless_file(self.path / key, status.st_mode)
        return status.st_size

    def exists(self, key: str) -> bool:
        try:
            self.size(key)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True


def open_regular(path: str | Path) -> BufferedReader:
    """Open a file that a user named for reading; links are followed. A pipe or device is rejected, because reading it
    could block forever. Files of a store are opened by `open_plain`.

    Raises:
        OSError: the file is missing, or is not a regular file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if stat.S_ISREG(mode := os.fstat(descriptor).st_mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    raise OSError(errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL, "is not a regular file", str(path))


def _pread(path: str, start: int, length: int) -> memoryview:
    """Up to `length` bytes, copied into new memory.

    The file is not memory-mapped: if another process truncates it (cp, rsync --inplace), reading a mapping raises
    SIGBUS, which kills the process.
    """
    descriptor = open_plain(path)
    try:
        length = (
            max(0, min(length, os.fstat(descriptor).st_size - start)) if start >= 0 else 0
        )  # allocate no memory for bytes past the end
        buffer = np.empty(length, np.uint8).data  # a bytearray would be zero-filled first
        read = os.preadv(descriptor, [buffer], start) if length else 0
    finally:
        os.close(descriptor)
    return buffer[:read]
