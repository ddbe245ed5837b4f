"""Restoring files of a damaged store that follow from its intact files."""

from collections.abc import Sequence

from ..access.store_files import LocalFiles
from ..file_names import FAILURES_FILE, INDEX_FILE
from ..records import ledger
from ..records.index import read_columns
from ..records.ledger import UNREADABLE_KEY
from ..records.zarr_metadata import metadata_keys, write_metadata
from ..store_errors import DamagedStore
from ..store_problem import Problem
from .partial_view import StoreView


def damaged_shards(view: StoreView, problems: Sequence[Problem]) -> list[int]:
    """Shards that must be recomputed: their data is damaged, or nothing confirms their record."""
    damaged = set()
    for problem in problems:
        if problem.shard is None:
            continue
        # the record was read or restored, but its shard's data contradicts it
        contradicted = problem.kind == "record" and problem not in view.problems
        if problem.kind == "shard" or contradicted or not _is_vouched(view, problem.shard, problems):
            damaged.add(problem.shard)
    return sorted(damaged)


def restore(view: StoreView, problems: Sequence[Problem]) -> list[str]:
    """Rewrite damaged metadata and ledger records that follow from intact files; returns their keys.

    Shards of `damaged_shards` get their record back too if it is confirmed, so that the recomputed rows can be compared
    with it.
    """
    assert isinstance(view.files, LocalFiles)
    store = view.files.path
    damaged = {problem.key for problem in problems if problem.kind in ("header", "metadata")}
    metadata = [key for key in metadata_keys(view.header) if key in damaged]
    if metadata:
        write_metadata(store, view.header, metadata)
    restored = [*metadata, *_restore_unreadable(view, problems)]
    for shard in sorted({p.shard for p in view.problems if p.kind == "record" and p.shard is not None}):
        if _is_vouched(view, shard, problems):
            ledger.commit(store, view.records[shard])
            restored.append(ledger.record_key(shard))
    return restored


def committed_root(view: StoreView) -> str | None:
    """The root digest in the index, with which the store was finished; `None` if the index cannot be read."""
    return None if view.summary is None else view.summary.root_sha256


def _is_vouched(view: StoreView, shard: int, problems: Sequence[Problem]) -> bool:
    record = view.records.get(shard)
    tables_differ = any(problem.key in (INDEX_FILE, FAILURES_FILE) for problem in problems)
    return record is not None and (view.vouches(record) or (view.manifest is None and not tables_differ))


def _restore_unreadable(view: StoreView, problems: Sequence[Problem]) -> list[str]:
    """Restore ledger/unreadable.json from failures.parquet, which has the same reasons."""
    assert isinstance(view.files, LocalFiles)
    sound = view.confirmed(FAILURES_FILE) or (view.manifest is None and view.unreadable is None)
    if not sound or not any(problem.key == UNREADABLE_KEY for problem in problems):
        return []
    try:
        rows = read_columns(view.files, FAILURES_FILE, ["image_hash", "reason"], view.header).to_pylist()
    except DamagedStore:
        return []
    ledger.write_unreadable(view.files.path, [row["reason"] for row in rows if row["image_hash"] is None])
    return [UNREADABLE_KEY]
