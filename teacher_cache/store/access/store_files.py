"""Where a store's files are: on a disk, or behind a URL. Readers ask for keys and ranges and do not care."""

import errno
import os
import stat
from collections.abc import Sequence
from io import BufferedReader
from pathlib import Path
from typing import Final, Protocol, runtime_checkable

import numpy as np

from ..filesystem.filesystem_errors import reading
from ..filesystem.plain_files import open_plain, raise_unless_file

Buffer = bytearray | memoryview

MOST_WHOLE: Final = 64 << 20
"""Bytes of a file that is read whole; a ledger record of 130,000 rows has fewer."""

Range = tuple[str, int, int]
"""Key of a file inside the store, first byte, number of bytes."""


@runtime_checkable
class StoreFiles(Protocol):
    """Reading the files of one store. An absent file raises FileNotFoundError. Survives pickling and forking."""

    @property
    def location(self) -> str:
        """The path or URL, as it was given."""

    def read(self, key: str) -> bytes:
        """A whole small file. Raises OSError where it has more than `MOST_WHOLE` bytes."""

    def read_ranges(self, ranges: Sequence[Range]) -> Sequence[Buffer]:
        """Copies of parts of files, in the order given; shorter than asked for where a file ends early."""

    def open(self, key: str) -> BufferedReader:
        """A seekable file that reads what is asked for, for Parquet."""

    def size(self, key: str) -> int:
        """Length of a file, in bytes."""

    def exists(self, key: str) -> bool:
        """Whether there is such a file."""


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
    """Open a file that a user names for reading, also through a link; a pipe or device, which could block for ever, is
    refused. Files of a store are opened by `open_plain`.

    Raises:
        OSError: it is absent, or not a regular file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if stat.S_ISREG(mode := os.fstat(descriptor).st_mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    raise OSError(errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL, "is not a regular file", str(path))


def _pread(path: str, start: int, length: int) -> memoryview:
    """Up to `length` bytes in memory of their own.

    Not mapped: a process that looks at a mapped file while another cuts it (cp, rsync --inplace) is ended by SIGBUS.
    """
    descriptor = open_plain(path)
    try:
        length = (
            max(0, min(length, os.fstat(descriptor).st_size - start)) if start >= 0 else 0
        )  # what is not there needs no memory
        buffer = np.empty(length, np.uint8).data  # a bytearray would be filled with zeros first
        read = os.preadv(descriptor, [buffer], start) if length else 0
    finally:
        os.close(descriptor)
    return buffer[:read]
