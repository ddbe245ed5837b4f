"""Publishing a store: every file after its digest was checked, the manifest last.

While a push is under way a marker names the store that it is of, so that the same command goes on after an
interruption and nothing else is ever mixed with it. Readers take a store without a manifest for unfinished.
"""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ...errors import StoreError
from ...progress import Progress
from ..store.format import MANIFEST_FILE, DataUse
from .destination import Destination
from .files import finished_store, read_checked
from .gate import require_permission

MARKER: Final = "push-under-way"
"""Holds the SHA-256 of the manifest of the store that is being pushed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PushReport:
    """What was published."""

    store: Path
    destination: str
    data_use: DataUse
    files: int
    files_there_before: int
    """By an interrupted push of the same store."""
    bytes_moved: int


def push(store: Path, destination: str, *, allow: DataUse | None, progress: Progress) -> PushReport:
    """Copy a finished store to a URL or folder, going on where an interrupted push of the same store stopped.

    Raises:
        StoreError: the store is unfinished or damaged, the destination holds something else, or it fails.
        SettingsError: the store's data-use class is not allowed to leave.
    """
    header, digests = finished_store(store)
    require_permission(header, allow, str(store))
    target = Destination(destination)
    manifest = (store / MANIFEST_FILE).read_bytes()
    sizes = {key: (store / key).stat().st_size for key in digests}
    present = _claim(target, manifest, sizes)
    missing = [key for key in sizes if present.get(key) != sizes[key]]
    progress.start("pushing", len(missing) + 1)
    _upload_all(target, store, {key: digests[key] for key in missing}, progress)
    _require_sizes(target, sizes)
    target.write(MANIFEST_FILE, manifest)
    target.delete(MARKER)
    progress.advance()
    return PushReport(
        store=store,
        destination=target.location,
        data_use=header.data_use,
        files=len(sizes) + 1,
        files_there_before=len(sizes) - len(missing),
        bytes_moved=sum(sizes[key] for key in missing) + len(manifest),
    )


def _claim(target: Destination, manifest: bytes, sizes: dict[str, int]) -> dict[str, int]:
    """Make sure that nothing else is there, leave the marker, and return what an earlier push brought."""
    present = target.sizes()
    ours = hashlib.sha256(manifest).hexdigest()
    if MANIFEST_FILE in present and target.read(MANIFEST_FILE) != manifest:
        raise StoreError(
            f"{target.location} already holds another store, or another state of this one: push to a new place. "
            "Stores are not changed where others may be reading them"
        )
    if MARKER in present and target.read(MARKER).decode(errors="replace") != ours:
        raise StoreError(
            f"{target.location} holds an unfinished push of another store: finish that one, or delete what is there"
        )
    strange = sorted(set(present) - set(sizes) - {MARKER, MANIFEST_FILE})
    unexplained = [] if MARKER in present or MANIFEST_FILE in present else sorted(present)
    if odd := strange or unexplained:
        raise StoreError(f"{target.location} is not empty: it holds {odd[0]}. Push to a place of its own")
    target.write(MARKER, ours.encode())
    return present


def _upload_all(target: Destination, store: Path, digests: dict[str, str], progress: Progress) -> None:
    def upload(key: str) -> None:
        for _ in read_checked(store / key, digests[key], key):
            pass  # all of it is checked before any of it is sent
        target.put(key, store / key)

    with ThreadPoolExecutor(target.uploads_at_once) as pool:
        try:
            for _ in pool.map(upload, digests):
                progress.advance()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _require_sizes(target: Destination, sizes: dict[str, int]) -> None:
    present = target.sizes()
    wrong = [key for key in sizes if present.get(key) != sizes[key]]
    if wrong:
        raise StoreError(
            f"{len(wrong)} files did not arrive whole at {target.location}, first: {wrong[0]} with "
            f"{present.get(wrong[0], 'no')} of {sizes[wrong[0]]} bytes; repeat the command"
        )
