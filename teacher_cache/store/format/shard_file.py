"""One shard file of Zarr's `sharding_indexed` codec: chunks, each with its crc32c, then the index with its
own.

Written as a stream, so a shard never has to fit in memory.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from crc32c import crc32c
from numpy.typing import NDArray

from ..filesystem.durable_files import make_folders, new_file
from ..store_errors import DamagedStore
from .header import ABSENT, CHECKSUM_BYTES

Bytes = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class FileRecord:
    """Length and SHA-256 of a finished file."""

    bytes: int
    sha256: str


class ShardWriter:
    """Appends the chunks of one shard in row order; the file gets its name when it is whole and on disk."""

    def __init__(self, path: Path, chunks: int) -> None:
        self._index: NDArray[np.uint64] = np.full((chunks, 2), ABSENT, dtype="<u8")
        self._next = 0
        self._offset = 0
        self._digest = hashlib.sha256()
        make_folders(path.parent)
        self._file = new_file(path)

    def append(self, chunk: Bytes) -> bytes:
        """Add the next row's chunk and return its crc32c as it is stored."""
        self._index[self._next] = (self._offset, len(chunk) + CHECKSUM_BYTES)
        self._next += 1
        checksum = crc32c(chunk).to_bytes(CHECKSUM_BYTES, "little")
        self._write(chunk)
        self._write(checksum)
        return checksum

    def skip(self) -> None:
        """Leave the next row's chunk absent, so that it reads as the fill value."""
        self._next += 1

    def close(self) -> FileRecord:
        """Write the index, flush everything to disk and give the file its name."""
        index = self._index.tobytes()
        self._write(index)
        self._write(crc32c(index).to_bytes(CHECKSUM_BYTES, "little"))
        self._file.commit()
        return FileRecord(bytes=self._offset, sha256=self._digest.hexdigest())

    def abort(self) -> None:
        """Throw an unfinished shard away."""
        self._file.abort()

    def _write(self, data: Bytes) -> None:
        self._file.file.write(data)
        self._digest.update(data)
        self._offset += len(data)


def index_bytes(chunks: int) -> int:
    """Length of the index at the end of a shard file, its checksum included."""
    return chunks * 16 + CHECKSUM_BYTES


def parse_index(data: Bytes, chunks: int, start: int, where: str, lengths: tuple[int, int]) -> NDArray[np.uint64]:
    """Offset and length of every chunk, [chunks, 2]; both ABSENT for one that does not exist.

    `start` is where the index begins, after all chunks; `lengths` are the least and the most that a chunk may have, so
    that no memory is taken for more.

    Raises:
        DamagedStore: fewer bytes than an index has, another checksum, chunks of another length, or chunks that are not
            in front of it: the bytes of a chunk can have the length of an index, and a checksum that is right.
    """
    try:
        payload, _ = checked(data, index_bytes(chunks))
    except ValueError as error:
        raise DamagedStore(f"the shard index of {where} {error}") from error
    index = np.frombuffer(payload, dtype="<u8").reshape(chunks, 2)
    present = index[(index != ABSENT).any(axis=1)]
    if (present > start).any() or (present.sum(axis=1) > start).any():
        raise DamagedStore(f"the shard index of {where} is damaged: it names chunks outside the file")
    if (present[:, 1] < lengths[0]).any() or (present[:, 1] > lengths[1]).any():
        raise DamagedStore(f"the shard index of {where} is damaged: it names chunks of a length that no row has")
    return index


def checked(data: Bytes, length: int) -> tuple[memoryview, bytes]:
    """The payload in front of its checksum, which is a view of `data`, and the checksum as it is stored.

    Raises:
        ValueError: not `length` bytes, or another checksum.
    """
    if len(data) != length:
        raise ValueError(f"was cut short: it has {len(data)} of {length} bytes")
    payload, stored = memoryview(data)[:-CHECKSUM_BYTES], bytes(data[-CHECKSUM_BYTES:])
    if crc32c(payload) != int.from_bytes(stored, "little"):
        raise ValueError("is damaged: its crc32c does not match its bytes")
    return payload, stored


def row_checksum(checksums: list[bytes]) -> int:
    """crc32c over the checksums of a row's chunks as they are stored, in the order of its arrays."""
    return crc32c(b"".join(checksums))
