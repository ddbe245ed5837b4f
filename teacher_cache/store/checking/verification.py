"""Checking a store without a GPU, without its images and without zarr: every byte, or sizes and ledger alone."""

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ....errors import StoreError
from ....progress import Progress, Silent
from ..access.remote import open_files
from ..access.store_files import LocalFiles, StoreFiles
from ..file_names import GROUP_FILE, INDEX_FILE, MANIFEST_FILE, SIGNATURE_FILE
from ..format.header import FORMAT_VERSION, StoreHeader
from ..reading.root_digest import final_failures, ledger_root
from ..records.digest_list import stored_files
from ..records.ledger import UNREADABLE_KEY, ShardRecord
from ..records.zarr_metadata import read_header
from ..signatures.signature import SignatureCheck, check_signature
from ..store_problem import Problem, distinct
from ..writing.closing import DERIVED_FILES
from .partial_view import StoreView
from .shard_check import check_shard, size_problems
from .small_file_checks import expected_files, small_file_problems, stranger_problems

if TYPE_CHECKING:
    from ..signatures.signing_keys import VerifyKey

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
    """Recomputed, and with `quick` from the ledger alone; `None` where the store is unfinished or has problems."""
    claimed_root_sha256: str | None
    """What the index says; no evidence of anything."""
    signature: SignatureCheck
    problems: tuple[Problem, ...]
    conversion_interrupted: bool
    """Whether that is all: `convert` was interrupted, and repeating it settles every problem."""

    @property
    def ok(self) -> bool:
        """Whether it is finished, whole, and of the root digest and the key that are trusted, where some are."""
        return self.finished and not self.problems


def verify(
    location: str | Path,
    *,
    quick: bool = False,
    expected_root: str | None = None,
    signed_by: "VerifyKey | None" = None,
    progress: Progress | None = None,
) -> VerifyReport:
    """Read every file of a store and compare header, index, ledger, manifest and rows with each other.

    Each shard file is read once, chunk by chunk, by as many threads as there are cores. `quick` reads no shard file.
    The root digest must be `expected_root`, and signed with the key `signed_by`, where they are given.

    Raises:
        StoreError: neither copy of the header can be read, or every byte of a remote store is asked for.
    """
    files = open_files(location)
    if not quick and not isinstance(files, LocalFiles):
        raise StoreError(
            f"{files.location} is remote, and checking every byte would fetch all of it: check a copy "
            "(`medalign store pull`), or sizes and ledger alone with --quick"
        )
    view, problems = examine(files, quick=quick, progress=progress or Silent())
    return _report(view, quick, problems, expected_root, signed_by)


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
    return view, distinct([*problems, *_signature_problems(view)])


def conversion_begun(view: StoreView) -> bool:
    """Whether a conversion was interrupted: zarr.json has the new version and nothing else of it, the manifest not."""
    indexed = None if view.summary is None else view.summary.header.get("format_version")
    if view.confirmed(GROUP_FILE) or (view.confirmed(INDEX_FILE) and indexed == FORMAT_VERSION):
        return False
    try:
        return read_header(view.files) == view.header.model_copy(update={"format_version": FORMAT_VERSION})
    except StoreError:
        return False


def beyond_conversion(problems: Iterable[Problem]) -> list[Problem]:
    """The problems that completing an interrupted conversion leaves."""
    written = {GROUP_FILE, *DERIVED_FILES}
    return [problem for problem in problems if problem.key not in written or problem.kind in ("root", "signature")]


def _signature_problems(view: StoreView) -> Iterable[Problem]:
    """That signature.json is whole and vouches for what the store holds; not whose it is.

    One that cannot be checked is no evidence against the store. It is an accident where the manifest lists other bytes,
    and in a store that was being closed, where nothing is listed.
    """
    listed, digest, checked = view.listed(SIGNATURE_FILE), view.digest(SIGNATURE_FILE), signature_of(view)
    if digest is None:
        if listed is not None or view.files.exists(SIGNATURE_FILE):
            yield Problem(kind="signature file", key=SIGNATURE_FILE, what=view.absence(SIGNATURE_FILE))
    elif checked.problems:
        is_evidence = view.closed and (checked.contradicts or digest == listed)
        for what in checked.problems:
            yield Problem(kind="signature" if is_evidence else "signature file", key=SIGNATURE_FILE, what=what)
    elif listed not in (None, digest):
        what = f"does not have the SHA-256 that {MANIFEST_FILE} lists"
        yield Problem(kind="derived", key=SIGNATURE_FILE, what=what)


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


def view_root(view: StoreView) -> str | None:
    """The root digest of what is known of a finished store; `None` where that is not all of it, or damaged."""
    if not view.closed or not view.complete or view.unreadable is None:
        return None
    records = list(view.records.values())
    unreadable = view.listed(UNREADABLE_KEY) is None or view.confirmed(UNREADABLE_KEY)
    sound = unreadable and all(map(view.vouches, records))
    return ledger_root(view.header, records, view.unreadable) if sound else None


def signature_of(view: StoreView, key: "VerifyKey | None" = None) -> SignatureCheck:
    """Check the store's signature, if it has one or `key` asks for one, against what is known of the store."""
    return check_signature(view.data(SIGNATURE_FILE), view.header, view_root(view), key)


def _vouching_problems(root: str | None, expected_root: str | None, signature: SignatureCheck) -> Iterable[Problem]:
    if expected_root is not None and root is not None and root != expected_root:
        what = f"the root digest is {root}, not the expected {expected_root}"
        yield Problem(kind="root", key=INDEX_FILE, what=what)
    if signature.untrusted:
        yield Problem(kind="signer", key=SIGNATURE_FILE, what=signature.untrusted)


def _report(
    view: StoreView,
    quick: bool,
    damage: tuple[Problem, ...],
    expected_root: str | None,
    signed_by: "VerifyKey | None",
) -> VerifyReport:
    records = list(view.records.values())
    root, signature = view_root(view), signature_of(view, signed_by)
    problems = distinct([*damage, *_vouching_problems(root, expected_root, signature)])
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
        root_sha256=None if any(problem.kind != "signer" for problem in problems) else root,
        claimed_root_sha256=None if view.summary is None else view.summary.root_sha256,
        signature=signature,
        problems=problems,
        conversion_interrupted=bool(problems) and not beyond_conversion(problems) and conversion_begun(view),
    )
