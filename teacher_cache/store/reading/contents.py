"""The parts of a finished store that a reader loads before it reads rows: header, index and failures."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....errors import StoreError
from ....plain_text import as_typed, counted
from ..access.store_files import LocalFiles, StoreFiles
from ..file_names import FAILURES_FILE, GROUP_FILE, INDEX_FILE, MANIFEST_FILE
from ..filesystem.plain_files import check_location
from ..format.header import StoreHeader, same_json
from ..records.index import HashColumn, ShardEntry, hash_column, read_columns, read_summary
from ..records.ledger import committed_shards
from ..records.zarr_metadata import check_arrays, parse_header, read_header
from ..store_errors import FROM_SENDER, AlteredStore, DamagedStore, Obstacle, UnfinishedStore
from .rows import damage


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreContents:
    """A finished store without its rows; arrays have the order of index.parquet."""

    header: StoreHeader
    root_sha256: str
    shards: tuple[ShardEntry, ...]
    failures: dict[str, str]
    """Image hash -> why this image has no row."""
    unreadable: tuple[str, ...]
    """Reasons why other files could not be hashed."""
    images: HashColumn
    rows: memoryview
    """[images] int64."""
    checksums: memoryview
    """[images] uint32."""


def read_contents(files: StoreFiles) -> StoreContents:
    """Read and check the header, index and failures of a store.

    Raises:
        StoreError: there is no store, it is not a medalign store, its format is newer, it is unfinished, or its index
            is damaged.
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
    earlier = header.model_copy(update={"format_version": 1})
    if earlier != header and same_json(summary.header, _dump(earlier)):
        raise UnfinishedStore(
            f"the conversion of {files.location} to format {header.format_version} was interrupted: run "
            f"`medalign store convert {as_typed(files.location)}` again"
        )
    if not same_json(summary.header, _dump(header)) or summary.root_sha256 is None:
        raise AlteredStore(
            f"{INDEX_FILE} and {GROUP_FILE} of {files.location} do not match: `medalign store verify "
            f"{as_typed(files.location)}` shows which of them was changed, and what to do"
        )
    if len(summary.shards) != header.shards:
        subject = counted(len(summary.shards), "shard")
        raise DamagedStore(f"{INDEX_FILE} of {files.location} lists {subject}, but its header has {header.shards}")
    for shard, entry in enumerate(summary.shards):
        if entry.profile not in header.profiles or len(entry.bytes) != len(header.arrays(entry.profile)):
            raise DamagedStore(f"{INDEX_FILE} of {files.location} lists impossible files for shard {shard}")
    check_arrays(files, header, tuple({shard.profile: None for shard in summary.shards}))
    failures, unreadable = _failures(files, header)
    images = hash_column(files, "image_hash", header)
    if (total := len(images) + len(failures) + len(summary.superseded)) != header.planned:
        raise DamagedStore(
            f"{files.location} should have {header.planned} planned images, but has {total}: {len(images)} in its "
            f"index, {len(failures)} failures and {len(summary.superseded)} superseded failures"
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
    """Rows and checksums of the index. Rows must ascend and be planned in the header, and none may be null."""
    columns = read_columns(files, INDEX_FILE, ["row", "crc32c"], header)
    if any(column.null_count for column in columns.columns) or len(columns) != images:
        raise DamagedStore(f"{INDEX_FILE} of {files.location} has images without a row or checksum")
    rows = columns.column("row").to_numpy()
    if len(rows) and not (rows[0] >= 0 and rows[-1] < header.rows and (np.diff(rows) > 0).all()):
        raise DamagedStore(f"the rows in {INDEX_FILE} of {files.location} are not ascending rows of the header's plan")
    return rows, columns.column("crc32c").to_numpy()


def _dump(header: StoreHeader) -> dict[str, Any]:
    return header.model_dump(mode="json")


def _header(files: StoreFiles) -> StoreHeader:
    """The header. If it cannot be read but its copy in the index can, the store is damaged, not missing."""
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
    """Whether a store was finished once, according to its index; its manifest may be missing."""
    try:
        return read_summary(files).root_sha256 is not None
    except DamagedStore:
        return False


def _unfinished(files: StoreFiles, header: StoreHeader) -> str:
    if not isinstance(files, LocalFiles):
        return f"{files.location} is unfinished: it has no {MANIFEST_FILE}. Push it again from its original location"
    if was_finished(files):
        return (
            f"{files.location} was finished once but has no {MANIFEST_FILE} now: an extension, a repair or another "
            "change was interrupted. Run that command again, or complete the store with `medalign store repair "
            f"{as_typed(files.location)} --weights FILE --manifest MANIFEST`, {FROM_SENDER}"
        )
    done = len(committed_shards(files.path))
    return (
        f"{files.location} is unfinished: {done} of {header.shards} shards are committed. Run the command that created "
        f"it with --resume: `medalign teacher extract --resume --teacher {as_typed(header.teacher)} "
        f"--out {as_typed(files.location)} ...`"
    )


def _failures(files: StoreFiles, header: StoreHeader) -> tuple[dict[str, str], tuple[str, ...]]:
    table = read_columns(files, FAILURES_FILE, ["image_hash", "reason"], header)
    pairs = list(zip(*(table.column(name).to_pylist() for name in ("image_hash", "reason")), strict=True))
    if not all(isinstance(reason, str) for _, reason in pairs):
        raise DamagedStore(f"{FAILURES_FILE} of {files.location} has a row without a reason")
    named = {image: reason for image, reason in pairs if image is not None}
    return named, tuple(reason for image, reason in pairs if image is None)
