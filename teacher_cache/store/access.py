"""Where a store's files are: on a disk, or behind a URL. Readers ask for keys and ranges and do not care."""

import os
from collections.abc import Sequence
from io import BufferedReader
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from ...plain_text import is_url
from .mapping import FileViews

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
        return (self.path / key).read_bytes()

    def read_ranges(self, ranges: Sequence[Range]) -> Sequence[Buffer]:
        data: list[Buffer] = []
        for key, start, length in ranges:
            path = self._prefix + key
            view = self._views.view(path, start, length)
            data.append(_pread(path, start, length) if view is None else view)
        return data

    def open(self, key: str) -> BufferedReader:
        return (self.path / key).open("rb")

    def size(self, key: str) -> int:
        return (self.path / key).stat().st_size

    def exists(self, key: str) -> bool:
        return (self.path / key).is_file()


def open_files(location: str | Path) -> StoreFiles:
    """Files at a path, or at a URL such as s3://bucket/store.zarr.

    Raises:
        StoreError: the URL is misspelled, or its protocol is unknown or needs a package that is not installed.
    """
    if not is_url(str(location)):
        return LocalFiles(Path(location))
    from .remote import RemoteFiles

    return RemoteFiles(str(location))


def _pread(path: str, start: int, length: int) -> bytearray:
    """Up to `length` bytes in a buffer of its own, so that a tensor may be made from it without a copy."""
    buffer = bytearray(length)
    file = os.open(path, os.O_RDONLY)
    try:
        read = os.preadv(file, [buffer], start)
    finally:
        os.close(file)
    return buffer if read == length else buffer[:read]
