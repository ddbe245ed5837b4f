"""Checking every byte of one shard: each file is read once, as a stream, and compared with the shard's record."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ....digests import add_file
from ..filesystem.filesystem_errors import reading
from ..filesystem.plain_files import open_plain
from ..format.chunks import chunk_lengths, decode_chunk
from ..format.header import ABSENT, StoreHeader, row_digest
from ..format.profiles import ArraySpec
from ..format.shard_file import checked, index_bytes, parse_index, row_checksum
from ..records.ledger import ImageRecord, ShardRecord, StoredFile, content_digest, record_key
from ..store_errors import DamagedStore
from ..store_problem import Problem


def check_record(header: StoreHeader, record: ShardRecord) -> list[Problem]:
    """Check a record for consistency with itself and with the header; a shard is read only if there are no problems."""
    arrays = header.arrays(record.profile) if record.profile in header.profiles else ()
    covered = sorted([image.row for image in record.images] + [failure.row for failure in record.failures])
    checks = {
        f"has profile {record.profile}, which no shard of this store can have": not arrays,
        "does not cover the rows of its shard": covered != list(header.shard_range(record.shard)),
        "does not list the files of its shard": [file.key for file in record.files]
        != [header.shard_key(record.profile, array, record.shard) for array in arrays],
        "does not match its own content digest": content_digest(record.images) != record.content_sha256,
    }
    return [_in_record(record, what) for what, failed in checks.items() if failed]


def size_problems(sizes: Mapping[str, int | None], record: ShardRecord) -> list[Problem]:
    """Compare the sizes of a shard's files, `None` for a missing one, with the record."""
    problems = []
    for file in record.files:
        size = sizes[file.key]
        if size != file.bytes:
            what = "is missing" if size is None else f"has {size} bytes, but the ledger lists {file.bytes}"
            problems.append(_in_file(record, file.key, what, _rows(record)))
    return problems


def check_shard(store: Path, header: StoreHeader, record: ShardRecord) -> list[Problem]:
    """Read all bytes of a shard whose record is consistent and whose files have the right sizes.

    Checks the SHA-256 of each file, the position and crc32c of each chunk, and the digest and checksum of each row.
    """
    arrays = zip(header.arrays(record.profile), record.files, strict=True)
    try:
        with reading(store), ExitStack() as opened:
            files = [
                _ShardFile(opened.enter_context(_open(store / stored.key)), array, stored, header.shard_rows)
                for array, stored in arrays
            ]
            suspects = _read_rows(files, header, record)
            for file in files:
                file.finish()
    except OSError as error:
        key = Path(error.filename).relative_to(store).as_posix() if error.filename else record.files[0].key
        return [_in_file(record, key, f"cannot be read: {error.strerror}", _rows(record))]
    problems = [
        _in_file(record, file.key, what, tuple(rows) or _rows(record))
        for file in files
        for what, rows in file.problems.items()
    ]
    return problems or [_in_record(record, what, tuple(rows)) for what, rows in suspects.items()]


def _open(path: Path) -> BinaryIO:
    return os.fdopen(open_plain(path), "rb")


class _ShardFile:
    """One file of a shard, read chunk by chunk from start to end."""

    def __init__(self, file: BinaryIO, array: ArraySpec, stored: StoredFile, chunks: int) -> None:
        self.key = stored.key
        self.problems: dict[str, list[int]] = defaultdict(list)
        """Problem -> affected rows; an empty list means all rows."""
        self._file, self._array, self._sha256 = file, array, stored.sha256
        self._digest = hashlib.sha256()
        start = max(0, stored.bytes - index_bytes(chunks))
        file.seek(start)
        index = bytearray(file.read(index_bytes(chunks)))
        file.seek(0)
        self._index: NDArray[np.uint64] | None = None
        try:
            self._index = parse_index(index, chunks, start, self.key, chunk_lengths(array))
        except DamagedStore as error:
            self.problems[str(error)] = []

    def next(self, chunk: int, row: int) -> tuple[NDArray[Any], bytes] | None:
        """Values and checksum of the next chunk; `None` if it is damaged or missing.

        After a chunk at the wrong position, the rest of the file is not read.
        """
        if self._index is None:
            return None
        offset, length = (int(value) for value in self._index[chunk])
        if (offset, length) == (ABSENT, ABSENT):
            self.problems["is empty"].append(row)
            return None
        if offset != self._file.tell():
            self.problems[f"chunk {chunk} is at the wrong position"] = []
            self._index = None
            return None
        data = bytearray(self._file.read(length))
        self._digest.update(data)
        try:
            payload, checksum = checked(data, length)
        except ValueError:
            self.problems["the crc32c of the chunk does not match its bytes"].append(row)
            return None
        try:
            return decode_chunk(self._array, payload), checksum
        except ValueError as error:
            self.problems[f"the chunk {error}"].append(row)
            return None

    def absent(self, chunk: int, row: int) -> None:
        """Check that the row of a failed image has no chunk."""
        if self._index is not None and tuple(self._index[chunk]) != (ABSENT, ABSENT):
            self.problems["has data, although the ledger says that the image failed"].append(row)

    def finish(self) -> None:
        """Digest the rest of the file and compare, unless the file is known to be damaged already."""
        if self.problems:
            return
        add_file(self._digest, self._file)
        if self._digest.hexdigest() != self._sha256:
            self.problems["has changed: its SHA-256 does not match the ledger"] = []


def _read_rows(files: Sequence[_ShardFile], header: StoreHeader, record: ShardRecord) -> dict[str, list[int]]:
    """Read all rows in order; returns contradictions between record and data -> affected rows."""
    images = {image.row: image for image in record.images}
    suspects: dict[str, list[int]] = defaultdict(list)
    for chunk in range(header.shard_rows):
        row = record.shard * header.shard_rows + chunk
        if (image := images.get(row)) is None:
            for file in files:
                file.absent(chunk, row)
            continue
        chunks = [file.next(chunk, row) for file in files]
        present = [values for values in chunks if values is not None]
        if len(present) == len(files) and (what := _contradiction(image, present)):
            suspects[what].append(row)
    return suspects


def _contradiction(image: ImageRecord, chunks: Sequence[tuple[NDArray[Any], bytes]]) -> str | None:
    """A contradiction between the record of a row and its bytes, if any."""
    if row_digest(values.data.cast("B") for values, _ in chunks) != image.sha256:
        return "the row's digest does not match its bytes"
    if row_checksum([checksum for _, checksum in chunks]) != image.crc32c:
        return "the row's checksum does not match its chunks"
    return None


def _rows(record: ShardRecord) -> tuple[int, ...]:
    return tuple(image.row for image in record.images)


def _in_file(record: ShardRecord, key: str, what: str, rows: tuple[int, ...]) -> Problem:
    return Problem(kind="shard", key=key, shard=record.shard, rows=rows, what=what)


def _in_record(record: ShardRecord, what: str, rows: tuple[int, ...] = ()) -> Problem:
    return Problem(kind="record", key=record_key(record.shard), shard=record.shard, rows=rows, what=what)
