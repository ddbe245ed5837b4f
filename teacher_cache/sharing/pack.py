"""Packing a store into one file: an uncompressed ZIP, which stock zarr can read too (`zarr.storage.ZipStore`).

Equal stores give equal files: members are in the manifest's order, with a fixed time and mode.
"""

import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ...atomic import AtomicFile, remove_leftovers
from ...choices import DataUse
from ...progress import Progress
from ..store.file_names import MANIFEST_FILE
from ..store.filesystem.disk_space import require_space
from ..store.filesystem.durable_files import folder_mode
from ..store.records.digest_list import file_digest
from ..store.store_errors import TargetInUse
from .data_use_gate import require_permission
from .listed_files import finished_store, read_checked

_MOMENT: Final = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a ZIP can store."""
UNIX: Final = 3
"""The system recorded in ZIP members, the same on all machines."""
_MODE: Final = 0o100644 << 16


@dataclass(frozen=True, kw_only=True, slots=True)
class PackReport:
    """Result of packing."""

    store: Path
    out: Path
    data_use: DataUse
    files: int
    bytes_on_disk: int
    """Size of the packed file."""
    sha256: str
    """Of the packed file."""
    claimed_root_sha256: str
    """Computed from header, index and ledger; `verify` compares it with the rows."""


def pack(store: Path, out: Path, *, allow: DataUse | None, progress: Progress) -> PackReport:
    """Write a finished store to the file `out`; every byte is compared with the manifest.

    Raises:
        StoreError: the store is unfinished or damaged, `out` exists, or its disk is too full.
        SettingsError: `allow` does not permit the store's data-use class.
    """
    opened, digests = finished_store(store)
    header = opened.header
    require_permission(header, allow, str(store))
    if os.path.lexists(out):
        raise TargetInUse(f"{out} exists: choose another file, or remove it first")
    out.parent.mkdir(parents=True, exist_ok=True)
    require_space(out.parent, sum((store / key).stat().st_size for key in digests), f"{out}")
    remove_leftovers(out)
    mode = folder_mode(header.data_use)
    progress.start("packing", len(digests) + 1)
    with AtomicFile(out, None if mode is None else mode & 0o666) as file:
        _write_members(file, store, digests, progress)
    return PackReport(
        store=store,
        out=out,
        data_use=header.data_use,
        files=len(digests) + 1,
        bytes_on_disk=out.stat().st_size,
        sha256=file_digest(out),
        claimed_root_sha256=opened.root_sha256,
    )


def _write_members(file: object, store: Path, digests: dict[str, str], progress: Progress) -> None:
    manifest = store / MANIFEST_FILE
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:  # type: ignore[call-overload]
        for key, digest in [*sorted(digests.items()), (MANIFEST_FILE, file_digest(manifest))]:
            member = zipfile.ZipInfo(key, _MOMENT)
            member.create_system, member.external_attr = UNIX, _MODE
            with archive.open(member, "w", force_zip64=True) as opened:
                for block in read_checked(store / key, digest, key):
                    opened.write(block)
            progress.advance()
