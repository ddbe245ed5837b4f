"""Counting the bytes that are read from a store."""

import threading
from collections.abc import Sequence

from ..store.access.remote import open_ranged
from ..store.access.store_files import Buffer, OpenFile, Range, StoreFiles


class CountingFiles:
    """Wraps a store's files and counts the bytes read in this process; threads may share it."""

    def __init__(self, files: StoreFiles) -> None:
        self._files = files
        self._small_files: dict[str, bytes] = {}
        self._lock = threading.Lock()
        self.bytes_read = 0

    @property
    def location(self) -> str:
        return self._files.location

    def read(self, key: str) -> bytes:
        data = self._files.read(key)
        self._count(len(data))
        return data

    def read_ranges(self, ranges: Sequence[Range]) -> Sequence[Buffer]:
        parts = self._files.read_ranges(ranges)
        self._count(sum(map(len, parts)))
        return parts

    def open(self, key: str) -> OpenFile:
        return open_ranged(self, key, self._small_files)

    def size(self, key: str) -> int:
        return self._files.size(key)

    def exists(self, key: str) -> bool:
        return self._files.exists(key)

    def _count(self, moved: int) -> None:
        with self._lock:
            self.bytes_read += moved
