"""A base class for files that are read in parts."""

import io
from abc import ABC, abstractmethod
from typing import Any


class SeekableReader(io.RawIOBase, ABC):
    """A seekable file of `size` bytes; subclasses implement `read_at`."""

    def __init__(self, size: int) -> None:
        self._size, self._at = size, 0

    @abstractmethod
    def read_at(self, start: int, length: int) -> bytes | bytearray | memoryview:
        """Up to `length` bytes starting at `start`; empty past the end."""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        length = max(0, min(len(buffer), self._size - self._at))
        data = self.read_at(self._at, length) if length else b""
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
