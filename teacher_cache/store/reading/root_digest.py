"""Root digests: one SHA-256 over a store's content that does not depend on its shards, order or number of workers.

Version 1 covers the fingerprint and, for each image, its hash and row digest. Version 2 covers everything that a reader
uses; docs/store-format.md lists what is not covered.
"""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from ..access.store_files import StoreFiles
from ..file_names import INDEX_FILE
from ..format.header import StoreHeader, canonical_json, lines_digest
from ..records.index import read_columns
from ..records.ledger import FailureRecord, ImageRecord, ShardRecord
from ..store_errors import DamagedStore
from .contents import StoreContents

NOT_UNDER_ROOT_1 = (
    "pixel hashes, image sizes, recorded max|dS|, reasons of failures, tolerance, data use, title, license"
)
"""Fields covered by the root digest of version 2 but not of version 1."""


def version_note(location: str) -> str:
    """The note for users of a store in format 1."""
    return (
        f"{location} has format 1, whose root digest does not cover {NOT_UNDER_ROOT_1}; "
        f"`medalign store convert` converts it to format 2, which does."
    )


_TYPES = {"width": pa.int64(), "height": pa.int64(), "row": pa.int64(), "max_abs_dS": pa.float32()}
_COLUMNS = ("image_hash", "pixel_hash", "row", "width", "height", "max_abs_dS", "sha256")


class RootRow(NamedTuple):
    """The values of one image with a row that the root digest covers."""

    image_hash: str
    pixel_hash: str
    width: int
    height: int
    profile: str
    max_abs_dS: str
    """The float32 value as 8 hex digits of its bits, most significant first."""
    sha256: str


def root_digest(
    header: StoreHeader,
    rows: Sequence[RootRow],
    failures: Sequence[tuple[str, str]],
    unreadable: Sequence[str],
) -> str:
    """Compute the root digest of a store in the version of its header.

    `failures` are (image hash, reason) pairs of images without a row; `unreadable` are the reasons for files without a
    hash.
    """
    if header.format_version == 1:
        lines = [f"{image} {digest}" for image, digest in sorted((row.image_hash, row.sha256) for row in rows)]
        return lines_digest([header.fingerprint, *lines, *(f"{image} failed" for image, _ in sorted(failures))])
    about = {
        "format_version": header.format_version,
        "fingerprint": header.fingerprint,
        "tolerance": header.tolerance,
        "data_use": header.data_use,
        "title": header.title,
        "licence": header.licence,
        "images": len(rows),
        "failures": len(failures),
        "unreadable": len(unreadable),
    }
    return lines_digest(
        [
            canonical_json(about).decode(),
            *sorted(" ".join(map(str, row)) for row in rows),
            *sorted(f"{image} failed {_quoted(reason)}" for image, reason in failures),
            *sorted(f"unreadable {_quoted(reason)}" for reason in unreadable),
        ]
    )


def ledger_root(header: StoreHeader, records: Sequence[ShardRecord], unreadable: Sequence[str]) -> str:
    """Compute the root digest from the ledger."""
    rows = [(image, record.profile) for record in records for image in record.images]
    changes = float_bits([image.max_abs_dS for image, _ in rows])
    return root_digest(
        header,
        [
            RootRow(image.image_hash, image.pixel_hash, image.width, image.height, profile, change, image.sha256)
            for (image, profile), change in zip(rows, changes, strict=True)
        ],
        [(failure.image_hash, failure.reason) for failure in final_failures(records)],
        unreadable,
    )


def index_root(files: StoreFiles, contents: StoreContents) -> str:
    """Compute the root digest from header, index.parquet and failures.parquet, without the ledger.

    Raises:
        DamagedStore: the index cannot be read, or has invalid rows or columns.
    """
    table = read_columns(files, INDEX_FILE, _COLUMNS, contents.header)
    columns = {name: _values(files, table, name) for name in _COLUMNS}
    shards = [row // contents.header.shard_rows for row in columns["row"]]
    if any(not 0 <= shard < len(contents.shards) for shard in shards):
        raise DamagedStore(f"{INDEX_FILE} of {files.location} lists rows that the store does not have")
    profiles = [contents.shards[shard].profile for shard in shards]
    named = [columns[name] for name in ("image_hash", "pixel_hash", "width", "height")]
    rows = map(RootRow, *named, profiles, float_bits(columns["max_abs_dS"]), columns["sha256"])
    return root_digest(contents.header, list(rows), list(contents.failures.items()), contents.unreadable)


def float_bits(values: Sequence[float]) -> list[str]:
    """The float32 bits of each value as 8 hex digits."""
    return [f"{bits:08x}" for bits in np.asarray(values, np.float32).view(np.uint32).tolist()]


def all_images(records: Sequence[ShardRecord]) -> list[ImageRecord]:
    """Every image that has a row, in row order."""
    return [image for record in records for image in record.images]


def final_failures(records: Sequence[ShardRecord]) -> list[FailureRecord]:
    """The failures that no later segment has superseded, one per image, in row order."""
    succeeded = {image.image_hash for record in records for image in record.images}
    last = {failure.image_hash: failure for record in records for failure in record.failures}
    return sorted((f for f in last.values() if f.image_hash not in succeeded), key=lambda failure: failure.row)


def _values(files: StoreFiles, table: Any, name: str) -> list[Any]:
    column = table.column(name)
    try:
        column = column.cast(_TYPES.get(name, pa.string()))
    except pa.ArrowException as error:
        raise DamagedStore(f"{INDEX_FILE} of {files.location}: column {name} has the wrong type") from error
    if column.null_count:
        raise DamagedStore(f"{INDEX_FILE} of {files.location}: column {name} has nulls")
    return list(column.to_pylist())


def _quoted(text: str) -> str:
    """A text as an ASCII JSON string: one line that cannot be confused with another entry."""
    return json.dumps(text)
