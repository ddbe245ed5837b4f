"""Reading stored rows: one range request for each chunk, and every checksum is verified."""

import threading
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ....choices import Profile
from ....plain_text import as_typed
from ..access.store_files import Buffer, Range, StoreFiles
from ..file_names import INDEX_FILE
from ..format.chunks import chunk_lengths, decode_chunk
from ..format.header import ABSENT, StoreHeader
from ..format.profiles import ArraySpec
from ..format.shard_file import checked, index_bytes, parse_index, row_checksum
from ..records.index import ShardEntry
from ..store_errors import FROM_SENDER, DamagedStore


class StoredRow(NamedTuple):
    """One row in its stored form."""

    row: int
    profile: Profile
    arrays: tuple[ArraySpec, ...]
    chunks: Sequence[memoryview]
    """One chunk for each of `arrays`, without its checksum."""
    location: str

    @property
    def where(self) -> str:
        """The row and its store, for messages."""
        return f"row {self.row} of {self.location}"


class _Shard(NamedTuple):
    """The chunk positions of one shard, for each array of its profile."""

    profile: Profile
    arrays: tuple[ArraySpec, ...]
    keys: tuple[str, ...]
    indexes: tuple[memoryview, ...]
    """[chunks, 2] offset and length. They are memory views, because accessing an array element is ten times as slow."""


class RowReader:
    """Reads rows of one store by row number. Shard indexes are cached, no file stays open, and threads may share it."""

    def __init__(self, files: StoreFiles, header: StoreHeader, shards: Sequence[ShardEntry]) -> None:
        self._files, self._header, self._entries = files, header, shards
        self._location = files.location
        self._shards: dict[int, _Shard] = {}
        self._lock = threading.Lock()

    def read(self, rows: Sequence[int], checksums: Sequence[int]) -> list[StoredRow]:
        """Read rows; `checksums` are their checksums in the index.

        Raises:
            DamagedStore: bytes are missing, have changed, or belong to another row.
        """
        shard_rows = self._header.shard_rows
        if new := {row // shard_rows for row in rows} - self._shards.keys():
            self._load(new)
        ranges: list[Range] = []
        for row in rows:
            number, chunk = divmod(row, shard_rows)
            shard = self._shards[number]
            for key, index in zip(shard.keys, shard.indexes, strict=True):
                offset, length = index[chunk, 0], index[chunk, 1]
                if offset == ABSENT:
                    raise damage(self._location, f"row {row} of {key} of {self._location} is empty")
                ranges.append((key, offset, length))
        data = zip(ranges, self._ranges(ranges), strict=True)
        read = []
        for row, checksum in zip(rows, checksums, strict=True):
            shard = self._shards[row // shard_rows]
            chunks = self._checked(row, checksum, islice(data, len(shard.keys)))
            read.append(StoredRow(row, shard.profile, shard.arrays, chunks, self._location))
        return read

    def _load(self, shards: set[int]) -> None:
        """Read and check the chunk indexes of shards that are not cached yet, all in one request."""
        with self._lock:
            new = {shard: self._index_ranges(shard) for shard in shards - self._shards.keys()}
            data = iter(self._ranges([request for requests in new.values() for request in requests]))
            for shard, requests in new.items():
                profile = self._entries[shard].profile
                arrays = self._header.arrays(profile)
                keys = tuple(key for key, _, _ in requests)
                indexes = tuple(
                    self._index(request, next(data), array) for request, array in zip(requests, arrays, strict=True)
                )
                self._shards[shard] = _Shard(profile, arrays, keys, indexes)

    def _index_ranges(self, shard: int) -> list[Range]:
        entry, length = self._entries[shard], index_bytes(self._header.shard_rows)
        keys = [self._header.shard_key(entry.profile, array, shard) for array in self._header.arrays(entry.profile)]
        return [(key, size - length, length) for key, size in zip(keys, entry.bytes, strict=True)]

    def _index(self, request: Range, data: Buffer, array: ArraySpec) -> memoryview:
        key, start, _ = request
        where = f"{key} of {self._location}"
        try:
            index = parse_index(data, self._header.shard_rows, start, where, chunk_lengths(array))
            return index.astype(np.uint64).data
        except DamagedStore as error:
            raise damage(self._location, str(error)) from error

    def _ranges(self, ranges: Sequence[Range]) -> Sequence[Buffer]:
        try:
            return self._files.read_ranges(ranges)
        except FileNotFoundError as error:
            absent = [key for key in dict.fromkeys(key for key, _, _ in ranges) if not self._files.exists(key)]
            raise damage(
                self._location,
                f"{', '.join(absent[:3])} of {self._location} is missing, although the store is finished",
            ) from error
        except OSError as error:
            raise DamagedStore(f"{self._location} cannot be read: {error}") from error

    def _checked(self, row: int, checksum: int, data: Iterable[tuple[Range, Buffer]]) -> list[memoryview]:
        """Verify the checksums of a row; returns its chunks without them."""
        chunks, checksums = [], []
        for (key, _, length), buffer in data:
            try:
                payload, stored = checked(buffer, length)
            except ValueError as error:
                raise damage(self._location, f"row {row} of {key} of {self._location} {error}") from error
            chunks.append(payload)
            checksums.append(stored)
        if row_checksum(checksums) != checksum:
            raise damage(
                self._location,
                f"row {row} of {self._location} contains the bytes of another row: its checksums do not match "
                f"{INDEX_FILE}",
            )
        return chunks


def damage(location: str, what: str) -> DamagedStore:
    """The error for bytes of a finished store that differ from the committed ones, with the commands that help."""
    return DamagedStore(
        f"{what}. `medalign store verify {as_typed(location)}` lists all damage; "
        f"`medalign store repair {as_typed(location)} --weights FILE --manifest MANIFEST` recomputes the damaged "
        f"shards, {FROM_SENDER}"
    )


def row_values(stored: StoredRow) -> dict[str, NDArray[Any]]:
    """Decode the arrays of a stored row: name -> values as a batch of one, which may be views of its chunks.

    Raises:
        DamagedStore: a chunk has the wrong number of values, or values that are not finite.
    """
    values = {}
    for array, chunk in zip(stored.arrays, stored.chunks, strict=True):
        try:
            values[array.name] = decode_chunk(array, chunk)[None]
        except ValueError as error:
            raise DamagedStore(f"{array.name} of {stored.where} {error}") from error
    return values
