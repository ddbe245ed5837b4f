"""A shard file of Zarr's `sharding_indexed` codec: chunks, each with its crc32c, then the index with its own crc32c.

It is written as a stream, so a shard need not fit in memory.
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
    """Size and SHA-256 of a finished file."""

    bytes: int
    sha256: str


class ShardWriter:
    """Writes the chunks of one shard in row order; the file gets its name when it is complete and on disk."""

    def __init__(self, path: Path, chunks: int) -> None:
        self._index: NDArray[np.uint64] = np.full((chunks, 2), ABSENT, dtype="<u8")
        self._next = 0
        self._offset = 0
        self._digest = hashlib.sha256()
        make_folders(path.parent)
        self._file = new_file(path)

    def append(self, chunk: Bytes) -> bytes:
        """Add the chunk of the next row; returns its stored crc32c."""
        self._index[self._next] = (self._offset, len(chunk) + CHECKSUM_BYTES)
        self._next += 1
        checksum = crc32c(chunk).to_bytes(CHECKSUM_BYTES, "little")
        self._write(chunk)
        self._write(checksum)
        return checksum

    def skip(self) -> None:
        """Leave out the chunk of the next row, so that it reads as the fill value."""
        self._next += 1

    def close(self) -> FileRecord:
        """Write the index, sync the file to disk and give it its name."""
        index = self._index.tobytes()
        self._write(index)
        self._write(crc32c(index).to_bytes(CHECKSUM_BYTES, "little"))
        self._file.commit()
        return FileRecord(bytes=self._offset, sha256=self._digest.hexdigest())

    def abort(self) -> None:
        """Discard an unfinished shard."""
        self._file.abort()

    def _write(self, data: Bytes) -> None:
        self._file.file.write(data)
        self._digest.update(data)
        self._offset += len(data)


def index_bytes(chunks: int) -> int:
    """Size of the index at the end of a shard file, including its checksum."""
    return chunks * 16 + CHECKSUM_BYTES


def parse_index(data: Bytes, chunks: int, start: int, where: str, lengths: tuple[int, int]) -> NDArray[np.uint64]:
    """Parse a shard index: offset and length of every chunk, [chunks, 2]; both are ABSENT for a missing chunk.

    `start` is the offset of the index, after all chunks. `lengths` are the minimum and maximum size of a chunk, so that
    no more memory than that is allocated.

    Raises:
        DamagedStore: the index is too short, its checksum or a chunk's size is wrong, or a chunk is not before the
            index (a chunk's own bytes can look like an index with a correct checksum).
    """
    try:
        payload, _ = checked(data, index_bytes(chunks))
    except ValueError as error:
        raise DamagedStore(f"the shard index of {where} {error}") from error
    index = np.frombuffer(payload, dtype="<u8").reshape(chunks, 2)
    present = index[(index != ABSENT).any(axis=1)]
    if (present > start).any() or (present.sum(axis=1) > start).any():
        raise DamagedStore(f"the shard index of {where} is damaged: it lists chunks outside the file")
    if (present[:, 1] < lengths[0]).any() or (present[:, 1] > lengths[1]).any():
        raise DamagedStore(f"the shard index of {where} is damaged: it lists chunks with a size that no row has")
    return index


def checked(data: Bytes, length: int) -> tuple[memoryview, bytes]:
    """Verify the checksum at the end of `data`; returns the payload, a view of `data`, and the stored checksum.

    Raises:
        ValueError: `data` does not have `length` bytes, or the checksum does not match.
    """
    if len(data) != length:
        raise ValueError(f"is truncated: it has {len(data)} of {length} bytes")
    payload, stored = memoryview(data)[:-CHECKSUM_BYTES], bytes(data[-CHECKSUM_BYTES:])
    if crc32c(payload) != int.from_bytes(stored, "little"):
        raise ValueError("is damaged: its crc32c does not match its bytes")
    return payload, stored


def row_checksum(checksums: list[bytes]) -> int:
    """crc32c over the stored checksums of a row's chunks, in the order of its arrays."""
    return crc32c(b"".join(checksums))
