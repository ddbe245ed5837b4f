"""Checking every byte of a store without a GPU and without the images."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from ...errors import StoreError
from ...progress import Progress, Silent
from . import ledger
from .format import (
    ATTENTION,
    FAILURES_FILE,
    INDEX_FILE,
    MANIFEST_FILE,
    PATCHES,
    StoreHeader,
    check_array_metadata,
    plan_digest,
    read_header,
    root_digest,
    row_digest,
    row_dtype,
    row_shape,
    shard_key,
)
from .index import read_columns, read_summary
from .ledger import ShardRecord
from .manifest import file_digest, is_finished, read_manifest, stored_files
from .problems import DamagedStore
from .shards import ShardReader


@dataclass(frozen=True, kw_only=True, slots=True)
class VerifyReport:
    """What `verify` found; a store without problems is exactly what its writer committed."""

    path: Path
    header: StoreHeader
    finished: bool
    shards: int
    """Shards that have a ledger record."""
    images: int
    failures: int
    bytes: int
    """Of all files."""
    root_sha256: str | None
    """Recomputed from the stored rows; `None` where the store is unfinished or has problems."""
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return self.finished and not self.problems


def verify(path: Path, progress: Progress | None = None) -> VerifyReport:
    """Read every file of a store and compare header, index, ledger, manifest and rows with each other.

    Raises:
        StoreError: there is no readable header, so nothing can be compared with it.
    """
    header = read_header(path)
    finished = is_finished(path)
    shards = ledger.committed_shards(path)
    progress = progress or Silent()
    progress.start("verifying shards", len(shards))
    records: list[ShardRecord] = []
    problems = list(_array_problems(path, header))
    for shard in shards:
        problems += _shard_problems(path, header, shard, records)
        progress.advance()
    root = None
    if finished:
        problems += _manifest_problems(path)
        root, found = _whole_store_problems(path, header, records)
        problems += found
    return VerifyReport(
        path=path,
        header=header,
        finished=finished,
        shards=len(shards),
        images=sum(len(record.images) for record in records),
        failures=sum(len(record.failures) for record in records),
        bytes=sum(file.stat().st_size for file in path.rglob("*") if file.is_file()),
        root_sha256=None if problems else root,
        problems=tuple(problems),
    )


def _array_problems(path: Path, header: StoreHeader) -> Iterator[str]:
    try:
        check_array_metadata(path, header)
    except StoreError as error:
        yield str(error)


def _shard_problems(path: Path, header: StoreHeader, shard: int, records: list[ShardRecord]) -> Iterator[str]:
    """Check one shard's record, files and rows; a readable record is added to `records`."""
    try:
        record = ledger.read_record(path, shard)
    except StoreError as error:
        yield str(error)
        return
    records.append(record)
    planned = sorted([image.row for image in record.images] + [failure.row for failure in record.failures])
    if planned != list(header.shard_range(shard)):
        yield f"the record of shard {shard} does not cover its rows"
        return
    for file in record.files:
        yield from _file_problems(path, file)
    if ledger.content_digest(record.images) != record.content_sha256:
        yield f"the record of shard {shard} contradicts its own content digest"
    yield from _row_problems(path, header, record)


def _file_problems(path: Path, file: ledger.StoredFile) -> Iterator[str]:
    found = path / file.key
    if not found.is_file():
        yield f"{file.key} is gone"
    elif (size := found.stat().st_size) != file.bytes:
        yield f"{file.key} has {size} bytes, not {file.bytes}"
    elif file_digest(found) != file.sha256:
        yield f"{file.key} has changed: its SHA-256 is not the one in the ledger"


def _row_problems(path: Path, header: StoreHeader, record: ShardRecord) -> Iterator[str]:
    """Decode every row; stop at the first that cannot be read, since its file is already reported."""
    try:
        readers = {
            name: ShardReader(path / shard_key(name, record.shard), header.shard_rows) for name in (PATCHES, ATTENTION)
        }
        for image in record.images:
            patches, attention = (_stored(readers[name], header, name, image.row) for name in (PATCHES, ATTENTION))
            if row_digest(patches, attention) != image.sha256:
                yield f"row {image.row} does not hold what the ledger says"
            if not all(
                np.isfinite(np.frombuffer(data, row_dtype(name))).all()
                for name, data in ((PATCHES, patches), (ATTENTION, attention))
            ):
                yield f"row {image.row} is not finite"
    except DamagedStore as error:
        yield str(error)


def _stored(reader: ShardReader, header: StoreHeader, name: str, row: int) -> memoryview:
    size = prod(row_shape(header, name)) * np.dtype(row_dtype(name)).itemsize
    data = reader.read(row % header.shard_rows, size)
    if data is None:
        raise DamagedStore(f"row {row} of {name} holds nothing")
    return data


def _manifest_problems(path: Path) -> Iterator[str]:
    """Every file is listed and has its digest; shard files were compared with the ledger already."""
    try:
        listed = read_manifest(path)
    except StoreError as error:
        yield str(error)
        return
    present = stored_files(path)
    yield from (f"{key} is not listed in {MANIFEST_FILE}" for key in present if key not in listed)
    yield from (f"{key} is gone" for key in listed if not (path / key).is_file())
    for key in present:
        if key in listed and file_digest(path / key) != listed[key]:
            yield f"{key} has changed: its SHA-256 is not the one in {MANIFEST_FILE}"


def _whole_store_problems(path: Path, header: StoreHeader, records: list[ShardRecord]) -> tuple[str | None, list[str]]:
    """Compare index, failures, plan and root digest with the ledger; returns the root digest too."""
    if [record.shard for record in records] != list(range(header.shards)):
        return None, [f"{len(records)} of {header.shards} shards have a readable record"]
    images = [image for record in records for image in record.images]
    failures = [failure for record in records for failure in record.failures]
    by_row = sorted([(image.row, image.image_hash) for image in images] + [(f.row, f.image_hash) for f in failures])
    root = root_digest(
        header.fingerprint,
        [(image.image_hash, image.sha256) for image in images],
        [failure.image_hash for failure in failures],
    )
    problems = []
    if plan_digest(image_hash for _, image_hash in by_row) != header.plan_sha256:
        problems.append("the ledger's images are not those of the plan")
    try:
        if read_summary(path).root_sha256 != root:
            problems.append(f"the root digest in {INDEX_FILE} is not that of the ledger's rows")
        if read_columns(path / INDEX_FILE, list(ledger.ImageRecord.model_fields)).to_pylist() != [
            _as_stored(image) for image in images
        ]:
            problems.append(f"{INDEX_FILE} and the ledger disagree")
        if read_columns(path / FAILURES_FILE, list(ledger.FailureRecord.model_fields)).to_pylist() != [
            failure.model_dump() for failure in failures
        ]:
            problems.append(f"{FAILURES_FILE} and the ledger disagree")
    except DamagedStore as error:
        problems.append(str(error))
    return root, problems


def _as_stored(image: ledger.ImageRecord) -> dict[str, object]:
    """An image's row of the index, where max_abs_dS has single precision."""
    return image.model_dump() | {"max_abs_dS": float(np.float32(image.max_abs_dS))}
