"""A view of a possibly damaged store that reads each part separately, so one problem does not hide the others."""

import hashlib
from collections.abc import Callable
from functools import cached_property
from typing import TypeVar

from pydantic import ValidationError

from ....errors import StoreError
from ....plain_text import as_typed
from ..access.store_files import MOST_WHOLE, LocalFiles, StoreFiles
from ..file_names import FAILURES_FILE, GROUP_FILE, INDEX_FILE, LEDGER_FOLDER, MANIFEST_FILE
from ..filesystem.plain_files import check_location
from ..format.header import StoreHeader
from ..records.digest_list import parse_manifest, stored_digest
from ..records.index import read_columns, read_summary
from ..records.ledger import (
    UNREADABLE_KEY,
    FailureRecord,
    ImageRecord,
    ShardRecord,
    StoredFile,
    committed_shards,
    content_digest,
    parse_record,
    parse_unreadable,
    record_bytes,
    record_key,
)
from ..records.zarr_metadata import parse_header, read_header
from ..store_errors import DamagedStore, Obstacle
from ..store_problem import Kind, Problem
from .shard_check import check_record
from .swapped_files import exchanged_files

T = TypeVar("T")
UNREADABLE = "cannot be read"
_UNKNOWN_SHARDS = 1000
"""Shards of a damaged store that only the header may claim, because every shard is looked for."""


class StoreView:
    """The small files of a store; a file that is missing or cannot be parsed is `None`."""

    def __init__(self, files: StoreFiles) -> None:
        """Raises StoreError if the store contains a link, or if neither copy of the header can be read."""
        self.files = files
        check_location(files.location)
        manifest = self.data(MANIFEST_FILE)
        self.closed = manifest is not None or files.exists(MANIFEST_FILE)
        self.manifest = None if manifest is None else _or_none(lambda: parse_manifest(manifest, MANIFEST_FILE))
        """Key -> SHA-256."""
        self.summary = _or_none(lambda: read_summary(files))
        self.header, header_problems = _choose_header(self)
        _require_plausible_shards(self)
        self.records, record_problems = _read_records(self)
        """The record of every committed shard; a damaged record is rebuilt from index.parquet."""
        self.problems = (*header_problems, *record_problems)
        """Problems of the header and the records."""

    def data(self, key: str) -> bytes | None:
        """Content of a small file."""
        return _or_none(lambda: self.files.read(key))

    def digest(self, key: str) -> str | None:
        """SHA-256 of a file."""
        most = None if key.endswith(".parquet") or "/c/" in key else MOST_WHOLE
        return _or_none(lambda: stored_digest(self.files, key, most))

    def absence(self, key: str) -> str:
        """The reason why `data` or `digest` of a file is `None`."""
        try:
            size = self.files.size(key)
        except (FileNotFoundError, NotADirectoryError):
            return "is missing"
        return f"has {size} bytes, but at most {MOST_WHOLE} are allowed" if size > MOST_WHOLE else UNREADABLE

    def listed(self, key: str) -> str | None:
        """SHA-256 of a file in the manifest; `None` if it is not listed or the manifest cannot be read."""
        return None if self.manifest is None else self.manifest.get(key)

    def confirmed(self, key: str) -> bool:
        """Whether a file matches its digest in the manifest."""
        listed = self.listed(key)
        return listed is not None and self.digest(key) == listed

    @cached_property
    def index_confirmed(self) -> bool:
        """Whether index and failures, from which a record can be restored, match the manifest."""
        return self.confirmed(INDEX_FILE) and self.confirmed(FAILURES_FILE)

    def vouches(self, record: ShardRecord) -> bool:
        """Whether the manifest confirms this record, or the index from which it follows."""
        digest = hashlib.sha256(record_bytes(record)).hexdigest()
        return digest == self.listed(record_key(record.shard)) or self.index_confirmed

    @property
    def was_finished(self) -> bool:
        """Whether the store has ever been finished: it has a manifest, or its index has a root digest."""
        return self.closed or (self.summary is not None and self.summary.root_sha256 is not None)

    @cached_property
    def unreadable(self) -> list[str] | None:
        """Reasons why image files could not be read; `None` if their record is damaged."""
        data = self.data(UNREADABLE_KEY)
        if data is None:
            return [] if self.listed(UNREADABLE_KEY) is None else None
        return _or_none(lambda: parse_unreadable(data, UNREADABLE_KEY))

    @property
    def root_inputs_confirmed(self) -> bool:
        """Whether all inputs of the root digest, and the index that contains it, match the manifest.

        If so, a wrong root digest is not accidental damage.
        """
        keys = [GROUP_FILE, INDEX_FILE, *(record_key(shard) for shard in range(self.header.shards))]
        listed = self.listed(UNREADABLE_KEY) is not None or self.files.exists(UNREADABLE_KEY)
        return all(self.confirmed(key) for key in [*keys, *([UNREADABLE_KEY] if listed else [])])

    @property
    def complete(self) -> bool:
        """Whether the records of all shards are known."""
        return len(self.records) == self.header.shards

    @cached_property
    def index_rows(self) -> dict[int, ImageRecord]:
        """Row -> its record in the index."""
        table = _or_none(lambda: read_columns(self.files, INDEX_FILE, list(ImageRecord.model_fields), self.header))
        images = [] if table is None else [_valid(ImageRecord, row) for row in table.to_pylist()]
        return {image.row: image for image in images if image is not None}

    @cached_property
    def failure_rows(self) -> dict[int, FailureRecord]:
        """Row -> the failure of its image, from failures.parquet and the index."""
        table = _or_none(lambda: read_columns(self.files, FAILURES_FILE, list(FailureRecord.model_fields), self.header))
        rows = [] if table is None else [row for row in table.to_pylist() if row["row"] is not None]
        last = [failure for row in rows if (failure := _valid(FailureRecord, row)) is not None]
        earlier = self.summary.superseded if self.summary is not None else ()
        return {failure.row: failure for failure in (*earlier, *last)}


def _or_none(read: Callable[[], T]) -> T | None:
    try:
        return read()
    except Obstacle:
        raise
    except (StoreError, OSError):
        return None


def _valid(model: type[T], values: dict[str, object]) -> T | None:
    try:
        return model(**values)
    except ValidationError:
        return None


def _choose_header(view: StoreView) -> tuple[StoreHeader, list[Problem]]:
    """The header on which zarr.json and index.parquet agree, or the one of them that can be trusted."""
    summary = view.summary
    own: StoreHeader | None = None
    failure: StoreError | OSError | None = None
    try:
        own = read_header(view.files)
    except Obstacle:
        raise
    except (StoreError, OSError) as error:
        failure = error
    copy = None if summary is None else _or_none(lambda: parse_header(summary.header, INDEX_FILE))
    if failure is not None and copy is None:
        raise _no_header(view.files, failure)
    if own is None or copy is None or summary is None or own == copy:
        known = own or copy
        assert known is not None
        return known, [] if own else [_problem("header", GROUP_FILE, "cannot be read; index.parquet has a copy")]
    differing = ", ".join(name for name in StoreHeader.model_fields if getattr(own, name) != getattr(copy, name))
    trusted = _trusted(view, own, copy, summary.fingerprint)
    if trusted is own:
        return own, [_problem("derived", INDEX_FILE, f"its copy of the header differs from zarr.json: {differing}")]
    if trusted is copy:
        return copy, [_problem("header", GROUP_FILE, f"differs from its copy in index.parquet: {differing}")]
    undecided = (
        f"differs from its copy in index.parquet ({differing}) and no digest shows which is right; if "
        "`medalign store extend` was interrupted, run it again"
    )
    return own, [_problem("content", GROUP_FILE, undecided)]


def _trusted(view: StoreView, own: StoreHeader, copy: StoreHeader, fingerprint: str) -> StoreHeader | None:
    """The one of two different headers whose file matches the manifest, or that has the fingerprint in the index."""
    sound = (view.confirmed(GROUP_FILE), view.confirmed(INDEX_FILE))
    if sound[0] == sound[1]:
        sound = (own.fingerprint == fingerprint, copy.fingerprint == fingerprint)
    return None if sound[0] == sound[1] else own if sound[0] else copy


def _require_plausible_shards(view: StoreView) -> None:
    """Check that the header does not claim far more shards than index, manifest and ledger, since all are looked for.

    Raises:
        DamagedStore: it does.
    """
    known = 0 if view.summary is None else len(view.summary.shards)
    known = max(known, sum(key.startswith(LEDGER_FOLDER) for key in view.manifest or ()))
    if isinstance(view.files, LocalFiles):
        known = max(known, len(committed_shards(view.files.path)))
    if view.header.shards > 2 * known + _UNKNOWN_SHARDS and view.was_finished:
        raise DamagedStore(
            f"the header of {view.files.location} plans {view.header.shards} shards, but its index, manifest and "
            f"ledger have at most {known}: get the store again from its source, or extract it again"
        )


def _no_header(files: StoreFiles, error: StoreError | OSError) -> StoreError | OSError:
    """The error for a store without a header; `error` is that of reading it."""
    if not isinstance(error, DamagedStore):
        return error
    if isinstance(files, LocalFiles) and (swapped := exchanged_files(files.path).get(GROUP_FILE)):
        return DamagedStore(
            f"{error}. According to {MANIFEST_FILE}, {GROUP_FILE} and {swapped} have each other's names: "
            f"`medalign store repair {as_typed(files.location)}` swaps them back"
        )
    return DamagedStore(
        f"{error}. Its copy in {INDEX_FILE} cannot be read either, so nothing can be checked or repaired: "
        "get the store again from its source, or extract it again"
    )


def _read_records(view: StoreView) -> tuple[dict[int, ShardRecord], list[Problem]]:
    records: dict[int, ShardRecord] = {}
    problems: list[Problem] = []
    for shard in range(view.header.shards):
        record, record_problems = _read_record(view, shard)
        problems += record_problems
        if record is not None:
            records[shard] = record
    return records, problems


def _read_record(view: StoreView, shard: int) -> tuple[ShardRecord | None, list[Problem]]:
    """The record of a shard: its own if that is intact, otherwise the one that follows from the index."""
    key = record_key(shard)
    data = view.data(key)
    if data is None and not view.was_finished:
        return None, []
    parsed = None if data is None else _or_none(lambda: parse_record(data, shard, key))
    contradictions = [] if parsed is None else check_record(view.header, parsed)
    known = view.listed(key) in (None, None if data is None else hashlib.sha256(data).hexdigest())
    if parsed is not None and known and not contradictions:
        return parsed, []
    rebuilt = rebuild_record(view, shard)
    if rebuilt is not None and record_bytes(rebuilt) == data:
        return rebuilt, [_problem("derived", MANIFEST_FILE, f"lists the wrong SHA-256 for {key}")]
    if rebuilt is not None and parsed is not None and not contradictions and not view.vouches(rebuilt):
        rebuilt = None
    rows = tuple(view.header.shard_range(shard))
    changed = "is damaged" if parsed is None else f"does not match {MANIFEST_FILE}"
    what = view.absence(key) if data is None else changed
    problem = Problem(kind="record", key=key, shard=shard, rows=() if rebuilt else rows, what=what)
    usable = rebuilt or (parsed if not contradictions else None)
    return usable, contradictions or [problem]


def rebuild_record(view: StoreView, shard: int) -> ShardRecord | None:
    """Rebuild the record of a shard from index, failures and manifest; `None` if they are not sufficient."""
    if view.summary is None or shard >= len(view.summary.shards):
        return None
    entry, rows = view.summary.shards[shard], view.header.shard_range(shard)
    images = tuple(view.index_rows[row] for row in rows if row in view.index_rows)
    failures = tuple(view.failure_rows[row] for row in rows if row in view.failure_rows)
    arrays = view.header.arrays(entry.profile)
    keys = [view.header.shard_key(entry.profile, array, shard) for array in arrays]
    digests = [view.listed(key) or view.digest(key) for key in keys]
    if len(images) + len(failures) != len(rows) or len(keys) != len(entry.bytes):
        return None
    described = [
        _valid(StoredFile, {"key": key, "bytes": size, "sha256": digest})
        for key, size, digest in zip(keys, entry.bytes, digests, strict=True)
    ]
    files = [file for file in described if file is not None]
    record = ShardRecord(
        shard=shard,
        profile=entry.profile,
        files=tuple(files),
        content_sha256=content_digest(images),
        images=images,
        failures=failures,
    )
    return record if len(files) == len(keys) and not check_record(view.header, record) else None


def _problem(kind: Kind, key: str, what: str) -> Problem:
    return Problem(kind=kind, key=key, what=what)
