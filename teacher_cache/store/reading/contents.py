"""What a reader must know of a finished store before it reads a row: header, index, failures."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....errors import StoreError
from ....plain_text import counted
from ..access.store_files import LocalFiles, StoreFiles
from ..file_names import FAILURES_FILE, INDEX_FILE, MANIFEST_FILE
from ..filesystem.plain_files import check_location
from ..format.header import StoreHeader, same_json
from ..records.index import HashColumn, ShardEntry, hash_column, read_columns, read_summary
from ..records.ledger import committed_shards
from ..records.zarr_metadata import check_arrays, parse_header, read_header
from ..store_errors import DamagedStore, Obstacle, UnfinishedStore
from .rows import damage


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreContents:
    """A finished store without its rows; arrays are in the order of index.parquet."""

    header: StoreHeader
    root_sha256: str
    shards: tuple[ShardEntry, ...]
    failures: dict[str, str]
    """Image hash -> why this image has no row."""
    unreadable: tuple[str, ...]
    """Why further files could not even be hashed."""
    images: HashColumn
    rows: memoryview
    """[images] int64."""
    checksums: memoryview
    """[images] uint32."""


def read_contents(files: StoreFiles) -> StoreContents:
    """Open a store.

    Raises:
        StoreError: no store, a foreign or newer one, an unfinished one, or one whose index is damaged.
    """
    check_location(files.location)
    try:
        return _read(files)
    except DamagedStore as error:
        raise damage(files.location, str(error)) from error


def _read(files: StoreFiles) -> StoreContents:
    header = _header(files)
    if not files.exists(MANIFEST_FILE):
        raise UnfinishedStore(_unfinished(files, header))
    summary = read_summary(files)
    before = header.model_copy(update={"format_version": 1})
    if before != header and same_json(summary.header, _dump(before)):
        raise UnfinishedStore(
            f"{files.location} was being converted to format {header.format_version}, and that was interrupted: repeat "
            f"`medalign teacher convert {files.location}`"
        )
    if not same_json(summary.header, _dump(header)) or summary.root_sha256 is None:
        raise DamagedStore(f"{INDEX_FILE} of {files.location} belongs to another store than its zarr.json")
    if len(summary.shards) != header.shards:
        subject = counted(len(summary.shards), "shard")
        raise DamagedStore(f"{INDEX_FILE} of {files.location} tells of {subject}, the header of {header.shards}")
    for shard, entry in enumerate(summary.shards):
        if entry.profile not in header.profiles or len(entry.bytes) != len(header.arrays(entry.profile)):
            raise DamagedStore(f"{INDEX_FILE} of {files.location} gives shard {shard} files that it cannot have")
    check_arrays(files, header, tuple({shard.profile: None for shard in summary.shards}))
    failures, unreadable = _failures(files, header)
    images = hash_column(files, "image_hash", header)
    if (found := len(images) + len(failures) + len(summary.superseded)) != header.planned:
        raise DamagedStore(
            f"{files.location} should account for {header.planned} images, but its index has {len(images)}, its "
            f"failures are {len(failures)}, and {len(summary.superseded)} more were made good: {found}"
        )
    rows, checksums = _numbers(files, header, len(images))
    return StoreContents(
        header=header,
        root_sha256=summary.root_sha256,
        shards=summary.shards,
        failures=failures,
        unreadable=unreadable,
        images=images,
        rows=rows.data,
        checksums=checksums.data,
    )


def _numbers(files: StoreFiles, header: StoreHeader, images: int) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
    """Rows and checksums of the index: ascending rows that the header plans, none of them null."""
    columns = read_columns(files, INDEX_FILE, ["row", "crc32c"], header)
    if any(column.null_count for column in columns.columns) or len(columns) != images:
        raise DamagedStore(f"{INDEX_FILE} of {files.location} has images without a row or checksum")
    rows = columns.column("row").to_numpy()
    if len(rows) and not (rows[0] >= 0 and rows[-1] < header.rows and (np.diff(rows) > 0).all()):
        raise DamagedStore(f"{INDEX_FILE} of {files.location} does not list rows of the header's plan in their order")
    return rows, columns.column("crc32c").to_numpy()


def _dump(header: StoreHeader) -> dict[str, Any]:
    return header.model_dump(mode="json")


def _header(files: StoreFiles) -> StoreHeader:
    """The header; one that cannot be read is damaged where the index has a copy that can."""
    try:
        return read_header(files)
    except Obstacle:
        raise
    except StoreError as error:
        try:
            parse_header(read_summary(files).header, INDEX_FILE)
        except StoreError:
            raise error from None
        raise DamagedStore(str(error)) from error


def was_finished(files: StoreFiles) -> bool:
    """Whether a store was closed once, as its index tells; its manifest may be away."""
    try:
        return read_summary(files).root_sha256 is not None
    except DamagedStore:
        return False


def _unfinished(files: StoreFiles, header: StoreHeader) -> str:
    if not isinstance(files, LocalFiles):
        return f"{files.location} is unfinished: it has no {MANIFEST_FILE}; push it again from where it was made"
    if was_finished(files):
        return (
            f"{files.location} was finished once and has no {MANIFEST_FILE} now: an extension, a repair or another "
            "change was interrupted. Repeat that command, or complete the store with `medalign teacher repair "
            f"{files.location} --weights FILE --manifest MANIFEST`"
        )
    done = len(committed_shards(files.path))
    return (
        f"{files.location} is unfinished: {done} of {header.shards} shards are committed. Repeat the command that made "
        f"it with --resume: medalign teacher extract --resume --teacher {header.teacher} --out {files.location} ..."
    )


def _failures(files: StoreFiles, header: StoreHeader) -> tuple[dict[str, str], tuple[str, ...]]:
    table = read_columns(files, FAILURES_FILE, ["image_hash", "reason"], header)
    pairs = list(zip(*(table.column(name).to_pylist() for name in ("image_hash", "reason")), strict=True))
    if not all(isinstance(reason, str) for _, reason in pairs):
        raise DamagedStore(f"{FAILURES_FILE} of {files.location} has a line without a reason")
    named = {image: reason for image, reason in pairs if image is not None}
    return named, tuple(reason for image, reason in pairs if image is None)
