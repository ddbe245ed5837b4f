"""Publishing a store: every file after its digest was checked, the manifest last.

While a push is under way a marker names the store that it is of, so that the same command goes on after an
interruption and nothing else is ever mixed with it. Each push leaves its marker before it lists what is there, so of
two that begin at once at least one sees the other's and withdraws, on every service whose lists are consistent. Pushes
of the same store write the same bytes and do not exclude each other. Readers take a store without a manifest for
unfinished.
"""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ...errors import StoreError
from ...plain_text import counted
from ...progress import Progress
from ..store.file_names import MANIFEST_FILE
from ..store.filesystem.disk_space import require_space
from ..store.filesystem.durable_files import folder_mode, make_folders
from ..store.format.header import DataUse
from ..store.store_errors import TargetInUse
from .data_use_gate import require_permission
from .destination import Destination
from .listed_files import finished_store, read_checked

MARKER: Final = "push-under-way"
"""Start of the marker's name; a dash and the SHA-256 of the manifest of the store that is being pushed follow."""


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
        bytes_moved=sum(sizes[key] for key in missing) + len(manifest),
    )


def _claim(
    target: Destination, marker: str, manifest: bytes, sizes: dict[str, int], mode: int | None
) -> dict[str, int]:
    """Leave the marker, make sure that nothing else is there, and return what an earlier push brought.

    Raises:
        StoreError: something else is there or on its way; the marker is withdrawn.
    """
    before = target.sizes()
    _require_free(target, before, marker, manifest, sizes)
    if target.is_folder:  # a new folder is its owner's alone where the images are not public
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
            f"{target.location} already holds another store, or another state of this one: push to a new place. "
            "Stores are not changed where others may be reading them"
        )
    if others := sorted(key for key in present if key.startswith(MARKER) and key != marker):
        raise TargetInUse(
            f"{target.location} holds an unfinished push of another store ({others[0][:32]}...), which is under way or "
            "was interrupted: wait for it or finish it, or delete what is there, or push to another place"
        )
    strange = sorted(set(present) - set(sizes) - {marker, MANIFEST_FILE})
    unexplained = [] if marker in present or MANIFEST_FILE in present else sorted(present)
    if odd := strange or unexplained:
        raise TargetInUse(f"{target.location} is not empty: it holds {odd[0]}. Push to a place of its own")


def _missing(
    target: Destination, present: dict[str, int], digests: dict[str, str], sizes: dict[str, int], progress: Progress
) -> list[str]:
    """The files that are not there as they should be; those of the right length are read back and compared."""
    candidates = [key for key in sizes if present.get(key) == sizes[key]]
    progress.start("comparing what is there", len(candidates))

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
            pass  # all of it is checked before any of it is sent
        target.put(key, store / key)

    with ThreadPoolExecutor(target.uploads_at_once) as pool:
        try:
            for _ in pool.map(upload, digests):
                progress.advance()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _require_whole(target: Destination, marker: str, sizes: dict[str, int]) -> None:
    """Check that all files arrived and that the place is still this push's own."""
    present = target.sizes()
    others = [key for key in present if key.startswith(MARKER) and key != marker]
    if marker not in present or others:
        raise StoreError(
            f"{target.location} was taken by another push, or its marker {MARKER} was deleted: nothing was published. "
            "Repeat the command when no other push is under way"
        )
    wrong = [key for key in sizes if present.get(key) != sizes[key]]
    if wrong:
        raise StoreError(
            f"{counted(len(wrong), 'file')} did not arrive whole at {target.location}, first: {wrong[0]} with "
            f"{present.get(wrong[0], 'no')} of {sizes[wrong[0]]} bytes; repeat the command"
        )
