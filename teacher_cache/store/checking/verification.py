"""Verifying a store without a GPU, images or zarr: every byte, or only the small files and the sizes of shards."""

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
    """Result of `verify`; a store without problems is exactly what its writer committed."""

    location: str
    header: StoreHeader
    quick: bool
    """Whether only the sizes of shard files were checked."""
    finished: bool
    shards: int
    """Number of shards whose record is known."""
    images: int
    failures: int
    bytes: int
    """Size of all files."""
    shard_bytes: int
    """Size of the shard files in these records."""
    root_sha256: str | None
    """Recomputed, with `quick` from the ledger only; `None` if the store is unfinished or has problems."""
    claimed_root_sha256: str | None
    """The root digest in the index, which was not verified."""
    expected_root: str | None
    """The root digest that the caller expects."""
    signature: SignatureCheck
    problems: tuple[Problem, ...]
    conversion_interrupted: bool
    """Whether an interrupted `convert` explains all problems, so that running it again fixes them."""

    @property
    def ok(self) -> bool:
        """Whether the store is finished and intact, and has the trusted root digest and key, if they were given."""
        return self.finished and not self.problems


def verify(
    location: str | Path,
    *,
    quick: bool = False,
    expected_root: str | None = None,
    signed_by: "VerifyKey | None" = None,
    progress: Progress | None = None,
) -> VerifyReport:
    """Read all files of a store and compare header, index, ledger, manifest and rows with each other.

    Each shard file is read once, chunk by chunk, with one thread per core (at most 8). `quick` reads no shard file.
    The root digest must be `expected_root` and be signed with the key `signed_by`, if they are given.

    Raises:
        StoreError: neither copy of the header can be read, or the store is remote and `quick` is false.
    """
    files = open_files(location)
    if not quick and not isinstance(files, LocalFiles):
        raise StoreError(
            f"{files.location} is remote, and verifying every byte would download all of it: verify a copy "
            "(`medalign store pull`), or only sizes and small files with --quick"
        )
    view, problems = examine(files, quick=quick, progress=progress or Silent())
    return _report(view, quick, problems, expected_root, signed_by)


def examine(files: StoreFiles, *, quick: bool, progress: Progress) -> tuple[StoreView, tuple[Problem, ...]]:
    """Find the problems of a store, as `verify` does; returns the view of the store too."""
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
    """Whether a conversion was interrupted: zarr.json differs only in the new version, which the manifest lacks."""
    indexed = None if view.summary is None else view.summary.header.get("format_version")
    if view.confirmed(GROUP_FILE) or (view.confirmed(INDEX_FILE) and indexed == FORMAT_VERSION):
        return False
    try:
        return read_header(view.files) == view.header.model_copy(update={"format_version": FORMAT_VERSION})
    except StoreError:
        return False


def beyond_conversion(problems: Iterable[Problem]) -> list[Problem]:
    """The problems that completing an interrupted conversion does not fix."""
    written = {GROUP_FILE, *DERIVED_FILES}
    return [
        problem
        for problem in problems
        if problem.key not in written or problem.kind in ("root", "signature", "other root")
    ]


def _signature_problems(view: StoreView) -> Iterable[Problem]:
    """Problems of signature.json: it must be intact and valid for the store's content. Who signed is not checked.

    A signature that cannot be checked is no evidence against the store. It is accidental damage if the manifest lists
    other bytes, or if finishing the store was interrupted, when there is no manifest.
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
        what = f"does not match its SHA-256 in {MANIFEST_FILE}"
        yield Problem(kind="derived", key=SIGNATURE_FILE, what=what)


def _present(view: StoreView) -> list[str]:
    """All files except the manifest; for a URL, which cannot be listed, the files that should exist."""
    return stored_files(view.files.path) if isinstance(view.files, LocalFiles) else expected_files(view)


def _read_shards(
    store: Path, header: StoreHeader, records: Iterable[ShardRecord], progress: Progress
) -> Iterable[Problem]:
    records = list(records)
    progress.start("verifying shards", len(records))
    with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1), thread_name_prefix="medalign-verify") as pool:
        for problems in pool.map(lambda record: check_shard(store, header, record), records):
            progress.advance()
            yield from problems


def _sizes(files: StoreFiles, keys: Iterable[str]) -> dict[str, int | None]:
    """Size of each file; `None` if it is missing."""
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
    """Compute the root digest of a finished store; `None` if some of its inputs are missing or damaged."""
    if not view.closed or not view.complete or view.unreadable is None:
        return None
    records = list(view.records.values())
    unreadable = view.listed(UNREADABLE_KEY) is None or view.confirmed(UNREADABLE_KEY)
    sound = unreadable and all(map(view.vouches, records))
    return ledger_root(view.header, records, view.unreadable) if sound else None


def signature_of(view: StoreView, key: "VerifyKey | None" = None) -> SignatureCheck:
    """Check the signature of a store, if it has one or `key` requires one."""
    return check_signature(view.data(SIGNATURE_FILE), view.header, view_root(view), key)


def _vouching_problems(root: str | None, expected_root: str | None, signature: SignatureCheck) -> Iterable[Problem]:
    if expected_root is not None and root is not None and root != expected_root:
        what = f"the root digest is {root}, not the expected {expected_root}"
        yield Problem(kind="other root", key=INDEX_FILE, what=what)
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
        root_sha256=None if damage else root,
        expected_root=expected_root,
        claimed_root_sha256=None if view.summary is None else view.summary.root_sha256,
        signature=signature,
        problems=problems,
        conversion_interrupted=bool(problems) and not beyond_conversion(problems) and conversion_begun(view),
    )
