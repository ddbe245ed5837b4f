"""One shard file of Zarr's `sharding_indexed` codec: chunks, each with its crc32c, then the index with its
own.

Written as a stream, so a shard never has to fit in memory; read with one pread for each row.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from .files import PARTIAL_SUFFIX, make_folders, sync_folder
from .format import ABSENT, CHECKSUM_BYTES
from .problems import DamagedStore


@dataclass(frozen=True, slots=True)
class FileRecord:
    """Length and SHA-256 of a finished file."""

    bytes: int
    sha256: str


class ShardWriter:
    """Appends the chunks of one shard in row order; the file gets its name when it is whole and on disk."""

    def __init__(self, path: Path, chunks: int) -> None:
        self._path = path
        self._partial = path.with_name(path.name + PARTIAL_SUFFIX)
        self._index: NDArray[np.uint64] = np.full((chunks, 2), ABSENT, dtype="<u8")
        self._next = 0
        self._offset = 0
        self._digest = hashlib.sha256()
        make_folders(path.parent)
        self._file = self._partial.open("wb")

    def append(self, chunk: bytes | memoryview | None) -> None:
        """Add the next row's chunk; `None` leaves it absent, so it reads as the fill value NaN."""
        if chunk is not None:
            self._index[self._next] = (self._offset, len(chunk) + CHECKSUM_BYTES)
            self._write(chunk)
            self._write(_checksum(chunk))
        self._next += 1

    def close(self) -> FileRecord:
        """Write the index, flush everything to disk and give the file its name."""
        index = self._index.tobytes()
        self._write(index)
        self._write(_checksum(index))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._partial.replace(self._path)
        sync_folder(self._path.parent)
        return FileRecord(bytes=self._offset, sha256=self._digest.hexdigest())

    def abort(self) -> None:
        """Throw an unfinished shard away."""
        self._file.close()
        self._partial.unlink(missing_ok=True)

    def _write(self, data: bytes | memoryview) -> None:
        self._file.write(data)
        self._digest.update(data)
        self._offset += len(data)


class ShardReader:
    """Reads chunks of one shard file; the index is read and checked once, the file is opened for each read.

    No handle stays open, so a reader may be copied into forked processes and used from several threads.
    """

    def __init__(self, path: Path, chunks: int) -> None:
        self._path = path
        size = chunks * 16
        with _Opened(path) as file:
            start = os.fstat(file).st_size - size - CHECKSUM_BYTES
            if start < 0:
                raise DamagedStore(f"{path} was cut short: it is too small to hold an index of {chunks} chunks")
            data = _checked(_pread(file, size + CHECKSUM_BYTES, start), path, "the shard index")
        self._index: NDArray[np.uint64] = np.frombuffer(data, dtype="<u8").reshape(chunks, 2)

    def read(self, chunk: int, size: int) -> memoryview | None:
        """The bytes of one chunk, or `None` where it is absent.

        Raises:
            DamagedStore: the file is gone or short, or the chunk's length or checksum is wrong.
        """
        offset, length = (int(value) for value in self._index[chunk])
        if (offset, length) == (ABSENT, ABSENT):
            return None
        if length != (expected := size + CHECKSUM_BYTES):
            raise DamagedStore(f"chunk {chunk} of {self._path} has {length} bytes, not {expected}")
        with _Opened(self._path) as file:
            return _checked(_pread(file, length, offset), self._path, f"chunk {chunk}", length)


class _Opened:
    """A file descriptor for reading; a missing file is damage."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> int:
        try:
            self._file = os.open(self._path, os.O_RDONLY)
        except FileNotFoundError:
            raise DamagedStore(f"{self._path} is gone, although the store is finished") from None
        except OSError as error:
            raise DamagedStore(f"{self._path} cannot be read: {error.strerror}") from error
        return self._file

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)


def _pread(file: int, length: int, offset: int) -> bytearray:
    """Up to `length` bytes in a buffer of its own, so that a tensor may be made from it without a copy."""
    buffer = bytearray(length)
    return buffer[:read] if (read := os.preadv(file, [buffer], offset)) < length else buffer


def _checksum(data: bytes | bytearray | memoryview) -> bytes:
    """crc32c, little-endian; the C library takes arrays and bytes, and no memoryview."""
    return int(google_crc32c.value(np.frombuffer(data, np.uint8))).to_bytes(CHECKSUM_BYTES, "little")


def _checked(data: bytearray, path: Path, what: str, length: int | None = None) -> memoryview:
    """The payload in front of its checksum.

    Raises:
        DamagedStore: fewer bytes than `length`, or another checksum.
    """
    if length is not None and len(data) != length:
        raise DamagedStore(f"{path} was cut short: {what} has {len(data)} of {length} bytes")
    payload, stored = memoryview(data)[:-CHECKSUM_BYTES], data[-CHECKSUM_BYTES:]
    if _checksum(payload) != stored:
        raise DamagedStore(f"{what} of {path} is damaged: its crc32c does not match its bytes")
    return payload
