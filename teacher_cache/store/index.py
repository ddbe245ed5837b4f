"""index.parquet and failures.parquet, and looking hashes up in millions of rows.

pyarrow without its threads reads them, so opening a store is safe in a forked process too.
"""

import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from .files import PARTIAL_SUFFIX, sync_folder
from .format import ATTRIBUTE, FAILURES_FILE, INDEX_FILE
from .ledger import FailureRecord, ImageRecord
from .problems import DamagedStore

_HEX = 64
_IS_DIGEST = re.compile(r"[0-9a-f]{64}").fullmatch
_INDEX_SCHEMA = pa.schema(
    [
        ("image_hash", pa.string()),
        ("pixel_hash", pa.string()),
        ("row", pa.int64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("max_abs_dS", pa.float32()),
        ("sha256", pa.string()),
    ]
)
_FAILURES_SCHEMA = pa.schema([("image_hash", pa.string()), ("reason", pa.string()), ("row", pa.int64())])


@dataclass(frozen=True, slots=True)
class IndexSummary:
    """What index.parquet says about the store as a whole."""

    fingerprint: str
    root_sha256: str | None
    """`None` while the store is unfinished."""


class HashColumn:
    """A column of SHA-256 hex digests that is searched by bisection of its first 64 bits."""

    def __init__(self, hex_digests: NDArray[np.uint8]) -> None:
        """`hex_digests` is [n, 64], ASCII."""
        self._hex = hex_digests
        prefixes = _prefixes(hex_digests)
        self._order = np.argsort(prefixes, kind="stable")
        self._sorted = prefixes[self._order]

    def __len__(self) -> int:
        return len(self._hex)

    def find(self, digest: str) -> int | None:
        """Position of the first row that holds `digest`, or `None`."""
        if not _IS_DIGEST(digest):
            return None
        wanted = np.frombuffer(digest.encode(), dtype=np.uint8)
        start = int(np.searchsorted(self._sorted, np.uint64(int(digest[:16], 16))))
        for position in self._order[start:]:
            candidate = self._hex[position]
            if np.array_equal(candidate, wanted):
                return int(position)
            if not np.array_equal(candidate[:16], wanted[:16]):
                return None
        return None


def _prefixes(hex_digests: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """The first 16 hex digits of each row as a number."""
    digits = hex_digests[:, :16]
    nibbles = np.where(digits >= ord("a"), digits - (ord("a") - 10), digits - ord("0")) & 15
    shifts = np.arange(60, -4, -4, dtype=np.uint64)
    prefixes: NDArray[np.uint64] = np.bitwise_or.reduce(nibbles.astype(np.uint64) << shifts, axis=1)
    return prefixes


def write_plan(store: Path, fingerprint: str, image_hashes: Sequence[str]) -> None:
    """Write the index of a store that has no data yet: every image has its row, nothing else is known."""
    columns: dict[str, Any] = {field.name: pa.nulls(len(image_hashes), field.type) for field in _INDEX_SCHEMA}
    columns["image_hash"] = pa.array(image_hashes, pa.string())
    columns["row"] = pa.array(range(len(image_hashes)), pa.int64())
    _write(store / INDEX_FILE, pa.table(columns, _INDEX_SCHEMA), IndexSummary(fingerprint, None))


def write_index(store: Path, summary: IndexSummary, images: Iterable[ImageRecord]) -> None:
    """Write the index of a finished store, in row order."""
    rows = [image.model_dump() for image in images]
    _write(store / INDEX_FILE, pa.Table.from_pylist(rows, _INDEX_SCHEMA), summary)


def write_failures(store: Path, failures: Iterable[FailureRecord]) -> None:
    rows = [failure.model_dump() for failure in failures]
    _write(store / FAILURES_FILE, pa.Table.from_pylist(rows, _FAILURES_SCHEMA), None)


def read_summary(store: Path) -> IndexSummary:
    """Read what index.parquet says about the store.

    Raises:
        DamagedStore: it is missing or not the index of a store.
    """
    try:
        metadata = pq.read_metadata(store / INDEX_FILE).metadata or {}
        return IndexSummary(**json.loads(metadata[ATTRIBUTE.encode()]))
    except (OSError, pa.ArrowException, KeyError, ValueError, TypeError) as error:
        raise _unreadable(store / INDEX_FILE, error) from error


def read_columns(file: Path, names: Sequence[str]) -> Any:
    """Read some columns of a Parquet file as an Arrow table.

    Raises:
        DamagedStore: the file is missing or unreadable.
    """
    try:
        return pq.read_table(file, columns=list(names), use_threads=False)
    except (OSError, pa.ArrowException, KeyError) as error:
        raise _unreadable(file, error) from error


def hash_column(file: Path, name: str) -> HashColumn:
    """Read a column of hex digests without making a Python string of each."""
    chunks = [chunk for chunk in read_columns(file, [name]).column(name).chunks if len(chunk)]
    parts = [_ascii(chunk, file, name) for chunk in chunks]
    return HashColumn(np.concatenate(parts) if parts else np.empty((0, _HEX), np.uint8))


def _ascii(chunk: Any, file: Path, name: str) -> NDArray[np.uint8]:
    """A string array of equally long values as bytes [n, 64]."""
    _, offset_buffer, data = chunk.buffers()
    offsets = np.frombuffer(offset_buffer, np.int32)[chunk.offset : chunk.offset + len(chunk) + 1]
    if chunk.null_count or (np.diff(offsets) != _HEX).any():
        raise DamagedStore(f"{file}: column {name} holds something other than SHA-256 digests")
    return np.frombuffer(data, np.uint8)[offsets[0] : offsets[-1]].reshape(-1, _HEX)


def _write(file: Path, table: Any, summary: IndexSummary | None) -> None:
    if summary is not None:
        content = {"fingerprint": summary.fingerprint, "root_sha256": summary.root_sha256}
        table = table.replace_schema_metadata({ATTRIBUTE: json.dumps(content)})
    partial = file.with_name(file.name + PARTIAL_SUFFIX)
    pq.write_table(table, partial, compression="zstd", write_page_checksum=True)
    with partial.open("rb+") as written:
        os.fsync(written.fileno())
    partial.replace(file)
    sync_folder(file.parent)


def _unreadable(file: Path, error: Exception) -> DamagedStore:
    if isinstance(error, FileNotFoundError):
        return DamagedStore(f"{file} is gone")
    return DamagedStore(f"{file} is damaged: {str(error).splitlines()[0] if str(error) else type(error).__name__}")
