"""index.parquet and failures.parquet, and hash lookup in millions of rows.

They are read by pyarrow without threads, so a forked process can open a store too.
"""

import binascii
import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, FailFast, Field

from ....choices import Profile
from ..access.store_files import MOST_WHOLE, StoreFiles
from ..file_names import FAILURES_FILE, INDEX_FILE
from ..filesystem.durable_files import new_file
from ..format.header import ATTRIBUTE, Sha256, StoreHeader
from ..store_errors import DamagedStore
from .ledger import MOST_UNREADABLE, FailureRecord, ImageRecord
from .parquet_guard import Limits, damaged_parquet, open_columns, read_footer
from .schemas import parse_model

_HEX = 64
_BYTES = _HEX // 2
_DIGEST = re.compile(r"[0-9a-f]{64}")
_ROWS_AT_ONCE = 65_536
"""Rows of a Parquet row group; limits the memory for opening a store."""
_INDEX_SCHEMA = pa.schema(
    [
        ("image_hash", pa.string()),
        ("pixel_hash", pa.string()),
        ("row", pa.int64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("max_abs_dS", pa.float32()),
        ("crc32c", pa.uint32()),
        ("sha256", pa.string()),
    ]
)
_FAILURES_SCHEMA = pa.schema([("image_hash", pa.string()), ("reason", pa.string()), ("row", pa.int64())])


class ShardEntry(BaseModel):
    """The facts about a shard that a reader needs to read from it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    profile: Profile
    bytes: Annotated[tuple[Annotated[int, Field(gt=0, lt=2**62)], ...], Field(max_length=8)]
    """Sizes of its files, one for each array of the profile."""


class IndexSummary(BaseModel):
    """Facts about the store as a whole, in the file metadata of index.parquet."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    fingerprint: Sha256
    root_sha256: Sha256 | None
    """`None` while the store is unfinished."""
    shards: Annotated[tuple[ShardEntry, ...], FailFast()]
    superseded: Annotated[tuple[FailureRecord, ...], FailFast()]
    """Failures superseded by a later segment, which failures.parquet does not list. With them, index and failures have
    all the content of the ledger, so a damaged ledger record can be restored."""
    header: dict[str, Any]
    """A copy of the header, from which a damaged zarr.json is restored."""


def is_digest(text: object) -> bool:
    """Whether this is a SHA-256 as stores write it: 64 lowercase hexadecimal digits."""
    return isinstance(text, str) and _DIGEST.fullmatch(text) is not None


class HashColumn:
    """A column of SHA-256 digests, searched by bisection on their first 64 bits."""

    def __init__(self, digests: NDArray[np.uint8]) -> None:
        """`digests` is [n, 32]."""
        prefixes = np.ascontiguousarray(digests[:, :8]).view(">u8")[:, 0].astype(np.uint64)
        order = np.argsort(prefixes)
        # Memory views, because accessing an array element is ten times as slow.
        self._digests = np.ascontiguousarray(digests).reshape(-1).data
        self._order = order.astype(np.uint32).data
        self._sorted = prefixes[order].data

    def __len__(self) -> int:
        return len(self._order)

    def find(self, digest: str) -> int | None:
        """Position of the first row with `digest`, or `None`."""
        try:
            key = bytes.fromhex(digest)
        except ValueError:
            return None
        if len(key) != _BYTES or key.hex() != digest:  # only lowercase hex without spaces is a digest
            return None
        prefix = int.from_bytes(key[:8], "big")
        candidate = bisect_left(self._sorted, prefix)
        first: int | None = None
        while candidate < len(self._sorted) and self._sorted[candidate] == prefix:
            position = self._order[candidate]
            stored = self._digests[position * _BYTES : (position + 1) * _BYTES]
            if stored == key and (first is None or position < first):
                first = position
            candidate += 1
        return first

    def hex(self, position: int) -> str:
        """The digest at a position."""
        return self._digests[position * _BYTES : (position + 1) * _BYTES].hex()


def write_plan(store: Path, header: StoreHeader, image_hashes: Sequence[str]) -> None:
    """Write the index of a store without data: it has the hash and row of every image, and nulls elsewhere."""
    rows = [row for shard in range(header.shards) for row in header.shard_range(shard)]
    columns: dict[str, Any] = {field.name: pa.nulls(len(image_hashes), field.type) for field in _INDEX_SCHEMA}
    columns["image_hash"] = pa.array(image_hashes, pa.string())
    columns["row"] = pa.array(rows, pa.int64())
    _write(store / INDEX_FILE, pa.table(columns, _INDEX_SCHEMA), _summary(header, None, (), ()))


def write_index(
    store: Path,
    header: StoreHeader,
    root_sha256: str,
    shards: Sequence[ShardEntry],
    images: Iterable[ImageRecord],
    superseded: Sequence[FailureRecord],
) -> None:
    """Write the index of a finished store, in row order."""
    _write(store / INDEX_FILE, index_table(images), _summary(header, root_sha256, shards, superseded))


def index_table(images: Iterable[ImageRecord]) -> Any:
    """The rows of index.parquet as an Arrow table."""
    return pa.Table.from_pylist([image.model_dump() for image in images], _INDEX_SCHEMA)


def failures_table(failures: Iterable[FailureRecord], unreadable: Sequence[str]) -> Any:
    """The rows of failures.parquet; unreadable files come last, without a hash."""
    rows: list[dict[str, Any]] = [failure.model_dump() for failure in failures]
    rows += [{"image_hash": None, "reason": reason, "row": None} for reason in unreadable]
    return pa.Table.from_pylist(rows, _FAILURES_SCHEMA)


def write_failures(store: Path, failures: Iterable[FailureRecord], unreadable: Sequence[str]) -> None:
    """Write failures.parquet: the reasons why images have no row."""
    _write(store / FAILURES_FILE, failures_table(failures, unreadable), None)


def read_summary(files: StoreFiles) -> IndexSummary:
    """Read the summary in index.parquet.

    Raises:
        DamagedStore: the file is missing or is not the index of a store.
    """
    with damaged_parquet(files.location, INDEX_FILE), files.open(INDEX_FILE) as file:
        metadata = read_footer(file)[0].metadata or {}
        if ATTRIBUTE.encode() not in metadata:
            raise ValueError(f"it has no {ATTRIBUTE} metadata")
        return parse_model(IndexSummary, metadata[ATTRIBUTE.encode()], MOST_WHOLE, f"{INDEX_FILE} of {files.location}")


def read_columns(files: StoreFiles, key: str, names: Sequence[str], header: StoreHeader) -> Any:
    """Read columns of index.parquet or failures.parquet as an Arrow table; `header` is that of the store.

    Raises:
        DamagedStore: the file is missing or unreadable, or claims more than the header allows.
    """
    with damaged_parquet(files.location, key):
        opened = open_columns(files, key, names, _limits(key, header))
        return opened.read(columns=list(names), use_threads=False)


def hash_column(files: StoreFiles, name: str, header: StoreHeader) -> HashColumn:
    """Read a column of hex digests of the index without creating a Python string for each."""
    parts: list[NDArray[np.uint8]] = []
    with damaged_parquet(files.location, INDEX_FILE):
        opened = open_columns(files, INDEX_FILE, [name], _limits(INDEX_FILE, header))
        batches = opened.iter_batches(_ROWS_AT_ONCE, columns=[name], use_threads=False)
        parts += [_digests(batch.column(0), files, name) for batch in batches if batch.num_rows]
    return HashColumn(np.concatenate(parts) if parts else np.empty((0, _BYTES), np.uint8))


def _limits(key: str, header: StoreHeader) -> Limits:
    """Limits for a file. The header does not count unreadable files; ledger/unreadable.json limits their number."""
    planned = header.planned
    if key == INDEX_FILE:
        return Limits(schema=_INDEX_SCHEMA, rows=planned, column_bytes=planned * 70 + (1 << 20), digests="image_hash")
    failed = planned * 1000 + 2 * MOST_WHOLE
    return Limits(schema=_FAILURES_SCHEMA, rows=planned + MOST_UNREADABLE, column_bytes=failed)


def _digests(texts: Any, files: StoreFiles, name: str) -> NDArray[np.uint8]:
    """A string array of hex digests as bytes [n, 32]."""
    _, offset_buffer, data = texts.buffers()
    offsets = np.frombuffer(offset_buffer, np.int32)[texts.offset : texts.offset + len(texts) + 1]
    if not texts.null_count and (np.diff(offsets) == _HEX).all():
        with suppress(binascii.Error):
            digests = binascii.unhexlify(memoryview(data)[offsets[0] : offsets[-1]])
            return np.frombuffer(digests, np.uint8).reshape(-1, _BYTES)
    raise DamagedStore(f"{INDEX_FILE} of {files.location}: column {name} has values that are not SHA-256 digests")


def _summary(
    header: StoreHeader, root_sha256: str | None, shards: Sequence[ShardEntry], superseded: Sequence[FailureRecord]
) -> IndexSummary:
    return IndexSummary(
        fingerprint=header.fingerprint,
        root_sha256=root_sha256,
        shards=tuple(shards),
        superseded=tuple(superseded),
        header=header.model_dump(mode="json"),
    )


def _write(file: Path, table: Any, summary: IndexSummary | None) -> None:
    if summary is not None:
        table = table.replace_schema_metadata({ATTRIBUTE: summary.model_dump_json()})
    with new_file(file) as out:
        pq.write_table(
            table, out, compression="zstd", write_page_checksum=True, row_group_size=_ROWS_AT_ONCE, use_dictionary=False
        )
