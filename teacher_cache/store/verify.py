"""Checking a store without a GPU, without its images and without zarr: every byte, or sizes and ledger alone."""

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ...errors import StoreError
from ...progress import Progress, Silent
from .access import LocalFiles, StoreFiles, open_files
from .closing import final_failures, ledger_root
from .findings import Problem, distinct
from .format import MANIFEST_FILE, StoreHeader
from .ledger import ShardRecord
from .manifest import stored_files
from .shard_check import check_shard, size_problems
from .small_checks import expected_files, small_file_problems, stranger_problems
from .view import StoreView

_MOST_THREADS = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class VerifyReport:
    """What `verify` found; a store without problems is exactly what its writer committed."""

    location: str
    header: StoreHeader
    quick: bool
    """Whether shard files were left unread but for their lengths."""
    finished: bool
    shards: int
    """Shards whose record is known."""
    images: int
    failures: int
    bytes: int
    """Of all files."""
    shard_bytes: int
    """Of the shard files of these records."""
    root_sha256: str | None
    """Recomputed from the ledger; `None` where the store is unfinished or has problems."""
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        return self.finished and not self.problems


def verify(location: str | Path, *, quick: bool = False, progress: Progress | None = None) -> VerifyReport:
    """Read every file of a store and compare header, index, ledger, manifest and rows with each other.

    Each shard file is read once, chunk by chunk, by as many threads as there are cores. `quick` reads no shard file.

    Raises:
        StoreError: neither copy of the header can be read, or every byte of a remote store is asked for.
    """
    files = open_files(location)
    if not quick and not isinstance(files, LocalFiles):
        raise StoreError(
            f"{files.location} is remote, and checking every byte would fetch all of it: check a copy "
            "(`medalign teacher pull`), or sizes and ledger alone with --quick"
        )
    view, problems = examine(files, quick=quick, progress=progress or Silent())
    return _report(view, quick, problems)


def examine(files: StoreFiles, *, quick: bool, progress: Progress) -> tuple[StoreView, tuple[Problem, ...]]:
    """What `verify` does, for those who go on with what could be read."""
    view = StoreView(files)
    problems = [*view.problems, *small_file_problems(view), *stranger_problems(view, _present(view))]
    sizes = _sizes(files, [file.key for record in view.records.values() for file in record.files])
    for record in view.records.values():
        problems += size_problems(sizes, record)
    if isinstance(files, LocalFiles) and not quick:
        short = {problem.shard for problem in problems if problem.kind == "shard"}
        whole = [record for shard, record in view.records.items() if shard not in short]
        problems += _read_shards(files.path, view.header, whole, progress)
    return view, distinct(problems)


def _present(view: StoreView) -> list[str]:
    """All files but the manifest; behind a URL, where nothing can be listed, those that there should be."""
    return stored_files(view.files.path) if isinstance(view.files, LocalFiles) else expected_files(view)


def _read_shards(
    store: Path, header: StoreHeader, records: Iterable[ShardRecord], progress: Progress
) -> Iterable[Problem]:
    records = list(records)
    progress.start("verifying shards", len(records))
    with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1), thread_name_prefix="medalign-verify") as pool:
        for found in pool.map(lambda record: check_shard(store, header, record), records):
            progress.advance()
            yield from found


def _sizes(files: StoreFiles, keys: Iterable[str]) -> dict[str, int | None]:
    """Length of each file, `None` where it is absent."""
    keys = list(keys)
    if isinstance(files, LocalFiles):
        return {key: _size(files, key) for key in keys}
    with ThreadPoolExecutor(_MOST_THREADS) as pool:
        return dict(zip(keys, pool.map(lambda key: _size(files, key), keys), strict=True))


def _size(files: StoreFiles, key: str) -> int | None:
    try:
        return files.size(key)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _report(view: StoreView, quick: bool, problems: tuple[Problem, ...]) -> VerifyReport:
    records = list(view.records.values())
    sizes = _sizes(view.files, [MANIFEST_FILE, *_present(view)])
    return VerifyReport(
        location=view.files.location,
        header=view.header,
        quick=quick,
        finished=view.closed,
        shards=len(records),
        images=sum(len(record.images) for record in records),
        failures=len(final_failures(records)) + len(view.unreadable or ()),
        bytes=sum(size or 0 for size in sizes.values()),
        shard_bytes=sum(file.bytes for record in records for file in record.files),
        root_sha256=ledger_root(view.header, records) if view.closed and view.complete and not problems else None,
        problems=problems,
    )
