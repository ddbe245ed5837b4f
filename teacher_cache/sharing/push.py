"""Publishing a store: each file is uploaded after its digest was checked, and the manifest comes last.

During a push, a marker identifies its store, so that the same command can resume after an interruption and no other
store is mixed with it. Each push writes its marker before it lists existing files, so if two pushes start at the same
time, at least one sees the other's marker and withdraws, on every service with consistent listings. Pushes of the same
store write the same bytes and do not exclude each other. Readers treat a store without a manifest as unfinished.
"""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ...choices import DataUse
from ...errors import SettingsError, StoreError
from ...plain_text import counted
from ...progress import Progress
from ..store.file_names import MANIFEST_FILE
from ..store.filesystem.disk_space import require_space
from ..store.filesystem.durable_files import folder_mode, make_folders
from ..store.store_errors import TargetInUse
from .data_use_gate import require_permission
from .destination import Destination
from .listed_files import finished_store, read_checked

MARKER: Final = "push-under-way"
"""Prefix of the marker's name; a dash and the SHA-256 of the pushed store's manifest follow."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PushReport:
    """Result of a push."""

    store: Path
    destination: str
    data_use: DataUse
    files: int
    files_there_before: int
    """Files of an earlier, interrupted push of the same store."""
    bytes_transferred: int
    claimed_root_sha256: str
    """Computed from header, index and ledger; `verify` compares it with the rows."""


def push(store: Path, destination: str, *, allow: DataUse | None, progress: Progress) -> PushReport:
    """Copy a finished store to a URL or folder; resumes an interrupted push of the same store.

    Raises:
        StoreError: the store is unfinished or damaged, the destination contains other files, or an upload fails.
        SettingsError: `allow` does not permit the store's data-use class, or the destination is the store itself.
    """
    opened, digests = finished_store(store)
    header = opened.header
    require_permission(header, allow, str(store))
    target = Destination(destination)
    if target.is_folder and Path(target.location).resolve() == store.resolve():
        raise SettingsError(f"{destination} is the store itself: push it to another folder, or to a URL")
    manifest = (store / MANIFEST_FILE).read_bytes()
    sizes = {key: (store / key).stat().st_size for key in digests}
    marker = f"{MARKER}-{hashlib.sha256(manifest).hexdigest()}"
    present = _claim(target, marker, manifest, sizes, folder_mode(header.data_use))
    missing = _missing(target, present, digests, sizes, progress)
    if target.is_folder:
        require_space(
            Path(target.location), sum(sizes[key] for key in missing), f"{counted(len(missing), 'file')} of {store}"
        )
    progress.start("pushing", len(missing) + 1)
    _upload_all(target, store, {key: digests[key] for key in missing}, progress)
    _require_whole(target, marker, sizes)
    target.write(MANIFEST_FILE, manifest)
    target.delete(marker)
    progress.advance()
    return PushReport(
        store=store,
        destination=target.location,
        data_use=header.data_use,
        files=len(sizes) + 1,
        files_there_before=len(sizes) - len(missing),
        bytes_transferred=sum(sizes[key] for key in missing) + len(manifest),
        claimed_root_sha256=opened.root_sha256,
    )


def _claim(
    target: Destination, marker: str, manifest: bytes, sizes: dict[str, int], mode: int | None
) -> dict[str, int]:
    """Write the marker, check that the destination has no other files, and return the files of an earlier push.

    Raises:
        StoreError: there are other files, or another push is in progress; the marker is deleted.
    """
    before = target.sizes()
    _require_free(target, before, marker, manifest, sizes)
    if target.is_folder:  # a new folder is accessible to its owner only, unless the images are public
        make_folders(Path(target.location), 0o777 if mode is None else mode)
    target.write(marker, b"")
    present = target.sizes()
    try:
        _require_free(target, present, marker, manifest, sizes)
    except StoreError:
        if marker not in before:
            target.delete(marker)
        raise
    return present


def _require_free(
    target: Destination, present: dict[str, int], marker: str, manifest: bytes, sizes: dict[str, int]
) -> None:
    if MANIFEST_FILE in present and target.read(MANIFEST_FILE) != manifest:
        raise TargetInUse(
            f"{target.location} already contains another store, or another state of this one: push to a new location. "
            "A published store is never changed, because others may be reading it"
        )
    if others := sorted(key for key in present if key.startswith(MARKER) and key != marker):
        raise TargetInUse(
            f"{target.location} contains an unfinished push of another store ({others[0][:32]}...), in progress or "
            "interrupted: wait for it or finish it, delete its files, or push to another location"
        )
    foreign = sorted(set(present) - set(sizes) - {marker, MANIFEST_FILE})
    unexplained = [] if marker in present or MANIFEST_FILE in present else sorted(present)
    if unexpected := foreign or unexplained:
        raise TargetInUse(f"{target.location} is not empty: it contains {unexpected[0]}. Push to an empty location")


def _missing(
    target: Destination, present: dict[str, int], digests: dict[str, str], sizes: dict[str, int], progress: Progress
) -> list[str]:
    """The files to upload: those without a complete copy; copies of the right size are read back and compared."""
    candidates = [key for key in sizes if present.get(key) == sizes[key]]
    progress.start("comparing existing files", len(candidates))

    def is_whole(key: str) -> bool:
        whole = target.digest(key, sizes[key]) == digests[key]
        progress.advance()
        return whole

    with ThreadPoolExecutor(target.uploads_at_once) as pool:
        kept = {key for key, whole in zip(candidates, pool.map(is_whole, candidates), strict=True) if whole}
    return [key for key in sizes if key not in kept]


def _upload_all(target: Destination, store: Path, digests: dict[str, str], progress: Progress) -> None:
    def upload(key: str) -> None:
        for _ in read_checked(store / key, digests[key], key):
            pass  # check the whole file before sending any of it
        target.put(key, store / key)

    with ThreadPoolExecutor(target.uploads_at_once) as pool:
        try:
            for _ in pool.map(upload, digests):
                progress.advance()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _require_whole(target: Destination, marker: str, sizes: dict[str, int]) -> None:
    """Check that all files arrived and that no other push has taken the destination."""
    present = target.sizes()
    others = [key for key in present if key.startswith(MARKER) and key != marker]
    if marker not in present or others:
        raise StoreError(
            f"another push has taken {target.location}, or its marker {MARKER} was deleted; nothing was published. Run "
            "the command again when no other push is in progress"
        )
    wrong = [key for key in sizes if present.get(key) != sizes[key]]
    if wrong:
        raise StoreError(
            f"{counted(len(wrong), 'file')} did not arrive completely at {target.location}; first: {wrong[0]} with "
            f"{present.get(wrong[0], 'no')} of {sizes[wrong[0]]} bytes. Run the command again"
        )
