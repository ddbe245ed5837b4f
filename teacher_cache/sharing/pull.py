"""Downloading a whole store: every digest is checked, and the folder appears when all of them match."""

import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from ...atomic import beside, restrict, sync_folder
from ...choices import DataUse
from ...errors import StoreError
from ...plain_text import as_typed, counted
from ...progress import Progress
from ..store.access.remote import open_files
from ..store.access.store_files import LocalFiles, StoreFiles
from ..store.checking.unaltered import require_unaltered
from ..store.file_names import INDEX_FILE, LOCK_FILE, MANIFEST_FILE
from ..store.filesystem.disk_space import require_space
from ..store.filesystem.durable_files import folder_mode, make_folders, new_file, open_to_all, write_atomically
from ..store.filesystem.locks import RunLock
from ..store.filesystem.plain_files import check_location, raise_for_kind
from ..store.records.digest_list import file_digest, parse_manifest, stored_files
from ..store.records.index import read_summary
from ..store.store_errors import DamagedStore, StoreInUse, TargetInUse
from .listed_files import check_names, require_listed_signature, wrong_digest
from .steady_source import State, unfinished
from .transfer_counts import CountingFiles

_BLOCK: Final = 8 << 20
"""Bytes per request."""
_BLOCKS_AT_ONCE: Final = 4
_FILES_AT_ONCE: Final = 4
"""With the block size above, at most 128 MB of a store are in memory."""
_SIZES_AT_ONCE: Final = 16
_AFTER_CHANGE: Final = "Run the command again to pull the current store; files that are in both are kept"


@dataclass(frozen=True, kw_only=True, slots=True)
class PullReport:
    """Result of a pull."""

    source: str
    out: Path
    data_use: DataUse
    files: int
    files_there_before: int
    """Files of an earlier, interrupted pull."""
    bytes_transferred: int
    claimed_root_sha256: str
    """Computed from header, index and ledger; `verify` compares it with the rows."""


def pull(source: str, out: Path, *, progress: Progress) -> PullReport:
    """Copy the finished store at a URL or path to the new folder `out`; resumes an interrupted pull.

    Raises:
        StoreError: there is no finished store, a digest is wrong, `out` exists, its disk is too full, or the source
            does not respond.
        ChangedStore: the source was replaced by another store during the pull.
    """
    if os.path.lexists(out):
        _remove_left_lock(out)
        raise TargetInUse(f"{out} exists: choose another folder, or remove it first")
    check_location(source)
    opened = open_files(source)
    files = CountingFiles(opened)
    try:
        manifest = files.read(MANIFEST_FILE)
    except FileNotFoundError as error:
        raise unfinished(source) from error
    except NotADirectoryError as error:
        unpack = f"`medalign store unpack {as_typed(source)} --out STORE.zarr`"
        raise StoreError(f"{source} is a file, not a store; {unpack} unpacks a packed store") from error
    digests = parse_manifest(manifest, f"{MANIFEST_FILE} of {source}")
    check_names(digests, source)
    if isinstance(opened, LocalFiles):
        require_listed_signature(opened.path, digests)
    building = beside(out, ".", ".pull.partial")
    _create_folder(building)
    with _PullLock(building, out):
        kept = _complete_files(building, digests)
        missing = {key: digest for key, digest in digests.items() if key not in kept}
        progress.start("pulling", len(missing))
        try:
            sizes = _sizes(files, missing)
            require_space(building, sum(sizes.values()), f"{counted(len(sizes), 'file')} of {source}")
            _fetch_all(files, building, missing, sizes, progress)
        except DamagedStore:
            State.of_manifest(manifest).require(files, _root(building), _AFTER_CHANGE)
            raise
        write_atomically(building / MANIFEST_FILE, manifest)
        store = require_unaltered(building)
        if folder_mode(store.header.data_use) is None:
            open_to_all(building)
        building.rename(out)  # while the lock still keeps other pulls out
        (out / LOCK_FILE).unlink(missing_ok=True)
        sync_folder(out.parent)
    return PullReport(
        source=source,
        out=out,
        data_use=store.header.data_use,
        files=len(digests) + 1,
        files_there_before=len(kept),
        bytes_transferred=files.bytes_read,
        claimed_root_sha256=store.root_sha256,
    )


def _remove_left_lock(out: Path) -> None:
    """Remove the lock of a pull that was killed after its store was moved into place."""
    if (out / MANIFEST_FILE).is_file() and (out / LOCK_FILE).is_file():
        with suppress(StoreError), RunLock(out):
            pass  # releasing the lock removes the file


def _create_folder(building: Path) -> None:
    """Create the folder of a pull, accessible to its owner only until the data-use class is known.

    Raises:
        StoreError: the path is a link.
    """
    raise_for_kind(building)
    building.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        building.mkdir(mode=0o700)
        restrict(building, 0o700)
        sync_folder(building.parent)


class _PullLock(RunLock):
    """A lock that allows one pull at a time into a folder."""

    def __init__(self, building: Path, out: Path) -> None:
        super().__init__(building)
        self._out = out

    def __enter__(self) -> "_PullLock":
        try:
            super().__enter__()
        except StoreInUse as error:
            raise StoreInUse(
                f"another process is pulling to {self._out}: wait for it, or choose another folder"
            ) from error
        return self


def _complete_files(building: Path, digests: dict[str, str]) -> set[str]:
    """The complete files of an interrupted pull; all others in the folder are removed."""
    present = [*stored_files(building), MANIFEST_FILE]
    kept = {key for key in present if key in digests and file_digest(building / key) == digests[key]}
    for key in present:
        if key not in kept:
            (building / key).unlink(missing_ok=True)
    return kept


class _MissingFile(DamagedStore):
    """A file that the manifest lists is missing."""


def _sizes(files: StoreFiles, keys: Iterable[str]) -> dict[str, int]:
    """Size of each file."""

    def size(key: str) -> int:
        try:
            return files.size(key)
        except FileNotFoundError as error:
            raise _MissingFile(f"{files.location} has no {key}, although its manifest lists it") from error

    names = list(keys)
    with ThreadPoolExecutor(_SIZES_AT_ONCE) as pool:
        return dict(zip(names, pool.map(size, names), strict=True))


def _root(building: Path) -> str:
    """The root digest of the store that is being pulled, after its index has been fetched."""
    try:
        return read_summary(LocalFiles(building)).root_sha256 or "none"
    except StoreError:
        return "not known yet"


def _fetch_all(
    files: StoreFiles, building: Path, digests: dict[str, str], sizes: dict[str, int], progress: Progress
) -> None:
    """Fetch the index first, since it contains the root digest, then all other files."""

    def fetch(key: str) -> None:
        _fetch(files, key, digests[key], sizes[key], building / key)
        progress.advance()

    for folder in sorted({(building / key).parent for key in digests}):
        make_folders(
            folder
        )  # not in the threads, where one could find another's new folder before its permissions are set
    if INDEX_FILE in digests:
        fetch(INDEX_FILE)
    with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
        try:
            for _ in pool.map(fetch, digests.keys() - {INDEX_FILE}):
                pass
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _fetch(files: StoreFiles, key: str, expected: str, size: int, target: Path) -> None:
    """Copy one file; it gets its name when its digest matches."""
    try:
        with new_file(target) as out:
            actual = _copy(files, key, size, out)
            if actual != expected:
                raise wrong_digest(f"{files.location}/{key}", key, actual, expected)
    except FileNotFoundError as error:
        raise _MissingFile(f"{files.location} has no {key}, although its manifest lists it") from error


def _copy(files: StoreFiles, key: str, size: int, out: BinaryIO) -> str:
    """Copy a file of `size` bytes to `out`; returns its SHA-256."""
    digest, at = hashlib.sha256(), 0
    while at < size:
        starts = range(at, min(size, at + _BLOCKS_AT_ONCE * _BLOCK), _BLOCK)
        parts = files.read_ranges([(key, start, min(_BLOCK, size - start)) for start in starts])
        for part in parts:
            digest.update(part)
            out.write(part)
        if not parts or any(not part for part in parts):
            break
        at = starts.stop
    return digest.hexdigest()
