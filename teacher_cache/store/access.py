"""Where a store's files are: on a disk, or behind a URL. Readers ask for keys and ranges and do not care."""

import os
import stat
from collections.abc import Sequence
from io import BufferedReader
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from .mapping import FileViews
from .plain import open_plain
from .trouble import reading

Buffer = bytearray | memoryview

Range = tuple[str, int, int]
"""Key of a file inside the store, first byte, number of bytes."""


@runtime_checkable
class StoreFiles(Protocol):
    """Reading the files of one store. An absent file raises FileNotFoundError. Survives pickling and forking."""

    @property
    def location(self) -> str:
        """The path or URL, as it was given."""

    def read(self, key: str) -> bytes:
        """A whole file."""

    def read_ranges(self, ranges: Sequence[Range]) -> Sequence[Buffer]:
        """Parts of files, in the order given; shorter than asked for where a file ends early.

        A memoryview shows the file itself: copy what is to be kept.
        """

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
        self._views = FileViews()

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return LocalFiles, (self.path,)

    @property
    def location(self) -> str:
        return str(self.path)

    def read(self, key: str) -> bytes:
        with self.open(key) as file:
            return file.read()

    def read_ranges(self, ranges: Sequence[Range]) -> Sequence[Buffer]:
        data: list[Buffer] = []
        with reading(self.path):
            for key, start, length in ranges:
                path = self._prefix + key
                view = self._views.view(path, start, length)
                data.append(_pread(path, start, length) if view is None else view)
        return data

    def open(self, key: str) -> BufferedReader:
        with reading(self.path):
            return os.fdopen(open_plain(self._prefix + key), "rb")

    def size(self, key: str) -> int:
        with reading(self.path):
            return (self.path / key).lstat().st_size

    def exists(self, key: str) -> bool:
        try:
            with reading(self.path):
                return stat.S_ISREG((self.path / key).lstat().st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return False


def open_files(location: str | Path) -> StoreFiles:
    """Files at a path, or at a URL such as s3://bucket/store.zarr.

    Raises:
        StoreError: the URL's protocol is unknown or needs a package that is not installed.
    """
    if isinstance(location, Path) or "://" not in location:
        return LocalFiles(Path(location))
    from .remote import RemoteFiles

    return RemoteFiles(location)


def _pread(path: str, start: int, length: int) -> bytearray:
    """Up to `length` bytes in a buffer of its own, so that a tensor may be made from it without a copy."""
    buffer = bytearray(length)
    file = open_plain(path)
    try:
        read = os.preadv(file, [buffer], start)
    finally:
        os.close(file)
    return buffer if read == length else buffer[:read]
