"""Merging an extension, a finished store in a separate folder, into its store, shard by shard, without copying data.

Every step can be repeated, so after a crash at any time, running all steps again completes it. Readers see the old
store until its manifest is removed, then an unfinished store, and finally the extended store.
"""

import errno
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from ....atomic import beside, restrict, sync_folder, temporary_path
from ..file_names import MANIFEST_FILE
from ..filesystem.durable_files import make_folders, new_file
from ..format.header import StoreHeader, plan_digest
from ..records import ledger
from ..records.ledger import FailureRecord, ImageRecord, ShardRecord, StoredFile
from ..records.zarr_metadata import read_header, write_metadata
from .writer import StoreWriter

_SIDE_SUFFIX = ".extension"
_NO_LINKS = (errno.EPERM, errno.EXDEV, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS)


def side_of(store: Path) -> Path:
    """The folder in which an extension is written until it is adopted."""
    return beside(store, "", _SIDE_SUFFIX)


def adopt(store: Path, planned: Sequence[str], side: Path, side_planned: Sequence[str]) -> str:
    """Append the segment in the finished store `side`, and finish the store; returns its root digest.

    `planned` and `side_planned` are the plans of both, in row order. `side` is not changed.
    """
    header, side_header = read_header(store), read_header(side)
    assert header.fingerprint == side_header.fingerprint
    assert header.shard_rows == side_header.shard_rows
    if not _is_extended(header, planned, side_planned):
        header = header.model_copy(
            update={
                "segments": (*header.segments, len(side_planned)),
                "plan_sha256": plan_digest((*planned, *side_planned)),
            }
        )
        header = StoreHeader.model_validate(header.model_dump())  # without cached properties of the old header
    for shard in range(side_header.shards):
        _take_shard(store, header, side, shard)
    (store / MANIFEST_FILE).unlink(missing_ok=True)
    sync_folder(store)
    write_metadata(store, header)
    replace_unreadable(store, ledger.read_unreadable(side))
    return StoreWriter(store).finish()


def replace_unreadable(store: Path, reasons: Sequence[str]) -> None:
    """Replace the recorded reasons why files could not be read."""
    if not reasons:
        (store / ledger.UNREADABLE_KEY).unlink(missing_ok=True)
    ledger.write_unreadable(store, reasons)


def _is_extended(header: StoreHeader, planned: Sequence[str], side_planned: Sequence[str]) -> bool:
    """Whether the header already includes this extension."""
    last = header.segments[-1]
    return len(header.segments) > 1 and last == len(side_planned) and list(planned[-last:]) == list(side_planned)


def _take_shard(store: Path, header: StoreHeader, side: Path, shard: int) -> None:
    """Hard-link a shard's files under its new number, then write its record."""
    record = ledger.read_record(side, shard)
    first = header.shards - read_header(side).shards
    number, shift = first + shard, first * header.shard_rows
    files = []
    for file, array in zip(record.files, header.arrays(record.profile), strict=True):
        key = header.shard_key(record.profile, array, number)
        _link(side / file.key, store / key)
        files.append(StoredFile(key=key, bytes=file.bytes, sha256=file.sha256))
    ledger.commit(
        store,
        ShardRecord(
            shard=number,
            profile=record.profile,
            files=tuple(files),
            content_sha256=record.content_sha256,
            images=tuple(ImageRecord(**{**image.model_dump(), "row": image.row + shift}) for image in record.images),
            failures=tuple(FailureRecord(**{**f.model_dump(), "row": f.row + shift}) for f in record.failures),
        ),
    )


def _link(source: Path, target: Path) -> None:
    """Hard-link a file, or copy it if the file system does not support links."""
    if target.exists() and target.samefile(source):
        return
    make_folders(target.parent)
    partial = temporary_path(target)
    try:
        os.link(source, partial)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        with new_file(target) as copy, source.open("rb") as original:
            shutil.copyfileobj(original, copy)
        return
    restrict(partial, target.parent.stat().st_mode & 0o666)
    partial.replace(target)
    sync_folder(target.parent)
