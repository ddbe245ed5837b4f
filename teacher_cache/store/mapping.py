"""Large parts of local files without copying them: the page cache itself, mapped into this process."""

import mmap
import os
import sys
from dataclasses import dataclass

SMALLEST_VIEW = 2**16
"""Bytes below which copying is as fast as mapping."""

_FILES = 64
"""Mapped at the same time; each keeps a file descriptor."""

_POPULATE_READ = 22
"""Linux's MADV_POPULATE_READ (5.14): bring pages in, and say so where they cannot be read. Without it a bad disk would
end the process by a signal instead of an error."""


@dataclass(frozen=True, slots=True)
class _Mapped:
    memory: mmap.mmap
    identity: tuple[int, int, int]


class FileViews:
    """Views of the files that were read last.

    They survive a fork, and threads may share them. A file that was replaced since is mapped anew.
    """

    def __init__(self) -> None:
        self._mapped: dict[str, _Mapped] = {}

    def view(self, path: str, start: int, length: int) -> memoryview | None:
        """Part of a file, or `None` where it is too short or the system cannot map it: read it, to learn why.

        The view is of the file as it is, also when that changes later: copy what is to be kept.

        Raises:
            FileNotFoundError: there is no such file.
        """
        status = os.stat(path)  # noqa: PTH116 (ten times as fast as Path.stat)
        if sys.platform != "linux" or start + length > status.st_size:
            return None
        try:
            memory = self._map(path, _identity(status))
            page = start - start % mmap.PAGESIZE
            memory.madvise(_POPULATE_READ, page, start + length - page)
        except (OSError, ValueError):  # ValueError: the file became shorter in this moment
            return None
        return memoryview(memory)[start : start + length]

    def _map(self, path: str, identity: tuple[int, int, int]) -> mmap.mmap:
        found = self._mapped.pop(path, None)
        if found is None or found.identity != identity:
            file = os.open(path, os.O_RDONLY)
            try:
                # Private and writable only because torch warns about arrays that are not; nothing writes to it.
                memory = mmap.mmap(file, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
                found = _Mapped(memory, _identity(os.fstat(file)))
            finally:
                os.close(file)
        self._mapped[path] = found  # at the end: the first is the one that was not used for longest
        if len(self._mapped) > _FILES:
            self._mapped.pop(next(iter(self._mapped)), None)
        return found.memory


def _identity(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_size, status.st_mtime_ns
