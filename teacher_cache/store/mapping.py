"""Parts of local files without copying them: the page cache itself, mapped into this process."""

import mmap
import os
import sys
from dataclasses import dataclass

from .plain import open_plain

_FILES = 128
"""Mapped at the same time; each keeps a file descriptor."""

_POPULATE_READ = 22
"""Linux's MADV_POPULATE_READ (5.14): bring pages in, and say so where they cannot be read. Without it a bad disk would
end the process by a signal instead of an error."""


@dataclass(frozen=True, slots=True)
class _Mapped:
    memory: mmap.mmap
    identity: tuple[int, int, int]
    """Inode, length and time of the last change."""


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
        mapped = self._mapped.pop(path, None)
        try:
            if mapped is None or mapped.identity != (status.st_ino, status.st_size, status.st_mtime_ns):
                mapped = _map(path)
            page = start - start % mmap.PAGESIZE
            mapped.memory.madvise(_POPULATE_READ, page, start + length - page)
        except (OSError, ValueError):  # ValueError: the file became shorter in this moment
            return None
        self._mapped[path] = mapped  # at the end: the first is the one that was not used for longest
        if len(self._mapped) > _FILES:
            self._mapped.pop(next(iter(self._mapped)), None)
        return memoryview(mapped.memory)[start : start + length]


def _map(path: str) -> _Mapped:
    file = open_plain(path)
    try:
        # Private and writable only because torch warns about arrays that are not; nothing writes to it.
        memory = mmap.mmap(file, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        status = os.fstat(file)
    finally:
        os.close(file)
    return _Mapped(memory, (status.st_ino, status.st_size, status.st_mtime_ns))
