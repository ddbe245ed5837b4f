"""Rows as they lie in their shards: one ranged read for each chunk, and every checksum checked."""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .access import Buffer, Range, StoreFiles
from .chunks import decode_chunk
from .format import ABSENT, INDEX_FILE, StoreHeader
from .index import ShardEntry
from .problems import DamagedStore
from .profiles import ArraySpec, Profile
from .shards import checked, index_bytes, parse_index, row_checksum


@dataclass(frozen=True, slots=True)
class StoredRow:
    """One row as it lies in its shard: chunks without their checksums, in the order of `arrays`."""

    row: int
    profile: Profile
    chunks: tuple[memoryview, ...]
    where: str
    """The row and its store, for messages."""


@dataclass(frozen=True, slots=True)
class _Shard:
    """Where the chunks of one shard are, for each array of its profile."""

    profile: Profile
    keys: tuple[str, ...]
    indexes: tuple[NDArray[np.uint64], ...]


class RowReader:
    """Reads rows of one store by number. Shard indexes are read once; no file stays open; threads may share it."""

    def __init__(self, files: StoreFiles, header: StoreHeader, shards: Sequence[ShardEntry]) -> None:
        self._files, self._header, self._entries = files, header, shards
        self._shards: dict[int, _Shard] = {}
        self._lock = threading.Lock()

    def read(self, rows: Sequence[int], checksums: Sequence[int]) -> list[StoredRow]:
        """Read rows; `checksums` are what the index says of them.

        Raises:
            DamagedStore: bytes are gone, have changed, or are those of another row.
        """
        self._load({row // self._header.shard_rows for row in rows})
        places = [self._places(row) for row in rows]
        data = iter(self._ranges([place for row_places in places for place in row_places]))
        return [
            self._checked_row(row, [next(data) for _ in row_places], row_places, checksum)
            for row, row_places, checksum in zip(rows, places, checksums, strict=True)
        ]

    def _load(self, shards: set[int]) -> None:
        """Read and check the chunk indexes of shards that were not read from before, all in one go."""
        if shards <= self._shards.keys():
            return
        with self._lock:
            new = {shard: self._index_ranges(shard) for shard in shards - self._shards.keys()}
            data = iter(self._ranges([place for places in new.values() for place in places]))
            for shard, places in new.items():
                keys = tuple(key for key, _, _ in places)
                indexes = tuple(self._index(place, next(data)) for place in places)
                self._shards[shard] = _Shard(self._entries[shard].profile, keys, indexes)

    def _index_ranges(self, shard: int) -> list[Range]:
        entry, length = self._entries[shard], index_bytes(self._header.shard_rows)
        keys = [self._header.shard_key(entry.profile, array, shard) for array in self._header.arrays(entry.profile)]
        return [(key, size - length, length) for key, size in zip(keys, entry.bytes, strict=True)]

    def _index(self, place: Range, data: Buffer) -> NDArray[np.uint64]:
        key, start, _ = place
        try:
            return parse_index(data, self._header.shard_rows, start, f"{key} of {self._files.location}")
        except DamagedStore as error:
            raise damage(self._files.location, str(error)) from error

    def _places(self, row: int) -> list[Range]:
        """Where the chunks of a row are."""
        number, chunk = divmod(row, self._header.shard_rows)
        shard = self._shards[number]
        places = []
        for key, index in zip(shard.keys, shard.indexes, strict=True):
            offset, length = index[chunk].tolist()
            if offset == ABSENT:
                raise damage(self._files.location, f"row {row} of {key} in {self._files.location} holds nothing")
            places.append((key, offset, length))
        return places

    def _ranges(self, ranges: Sequence[Range]) -> Sequence[Buffer]:
        try:
            return self._files.read_ranges(ranges)
        except FileNotFoundError as error:
            gone = [key for key in dict.fromkeys(key for key, _, _ in ranges) if not self._files.exists(key)]
            raise damage(
                self._files.location,
                f"{', '.join(gone[:3])} of {self._files.location} is gone, although the store is finished",
            ) from error
        except OSError as error:
            raise DamagedStore(f"{self._files.location} cannot be read: {error}") from error

    def _checked_row(self, row: int, data: Sequence[Buffer], ranges: Sequence[Range], checksum: int) -> StoredRow:
        where = f"row {row} of {self._files.location}"
        chunks, checksums = [], []
        try:
            for buffer, (key, _, length) in zip(data, ranges, strict=True):
                payload, stored = checked(buffer, length, f"{key} of {self._files.location}", f"row {row}")
                chunks.append(payload)
                checksums.append(stored)
            if row_checksum(checksums) != checksum:
                raise DamagedStore(f"{where} holds another row's bytes: its checksums are not those in {INDEX_FILE}")
        except DamagedStore as error:
            raise damage(self._files.location, str(error)) from error
        profile = self._shards[row // self._header.shard_rows].profile
        return StoredRow(row=row, profile=profile, chunks=tuple(chunks), where=where)


def damage(location: str, what: str) -> DamagedStore:
    """The error for bytes of a finished store that are not what was committed, with what to do about it."""
    return DamagedStore(
        f"{what}. `medalign teacher verify {location}` shows all damage; `medalign teacher repair {location} "
        "--weights FILE --manifest MANIFEST` computes what is damaged again"
    )


def row_values(stored: StoredRow, arrays: Sequence[ArraySpec]) -> Iterator[tuple[str, NDArray[Any]]]:
    """Name and values of each of a stored row's arrays.

    Raises:
        DamagedStore: a chunk holds more or fewer values than the row has, or values that are not finite.
    """
    for array, chunk in zip(arrays, stored.chunks, strict=True):
        values = decode_chunk(array, chunk, stored.where)
        if array.name == "E_a" and not np.isfinite(values).all():
            raise DamagedStore(f"E_a of {stored.where} is not finite")
        yield array.name, values
