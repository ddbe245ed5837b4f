"""Converting a store of an earlier format in place: small files are rewritten, shard files stay.

The manifest is replaced last. Until then it has the digests of the ledger, from which everything is written. So after a
crash at any time the same call completes the conversion, and `repair` reverts or completes it.
"""

from dataclasses import dataclass
from pathlib import Path

from ....errors import StoreError
from ....plain_text import as_typed
from ....progress import Progress, Silent
from ..access.store_files import LocalFiles
from ..file_names import GROUP_FILE
from ..filesystem.durable_files import remove_leftovers
from ..filesystem.locks import RunLock
from ..format.header import FORMAT_VERSION
from ..reading.root_digest import ledger_root
from ..records.zarr_metadata import write_metadata
from ..writing.closing import close_store
from .verification import beyond_conversion, conversion_begun, examine


@dataclass(frozen=True, kw_only=True, slots=True)
class ConversionReport:
    """Format version and root digest of a store before and after its conversion."""

    store: Path
    format_version_before: int
    format_version: int
    root_sha256_before: str
    """The root digest in the earlier version, for users who compare it with a published one."""
    root_sha256: str


def convert(store: Path, progress: Progress | None = None) -> ConversionReport:
    """Convert a finished store to the current format; a store in that format is left unchanged.

    Fields that the earlier root digest did not cover are taken from the store unverified. Shard files are not read.

    Raises:
        StoreError: another run is writing to the store, or it is unfinished or damaged.
    """
    with RunLock(store):
        remove_leftovers(store)
        view, problems = examine(LocalFiles(store), quick=True, progress=progress or Silent())
        header = view.header.model_copy(update={"format_version": FORMAT_VERSION})
        begun = conversion_begun(view)
        left = beyond_conversion(problems) if begun else list(problems)
        if not view.closed or left:
            what = left[0] if left else "it is unfinished"
            raise StoreError(
                f"{store} cannot be converted: {what}. `medalign store verify {as_typed(store)}` lists all problems "
                "and how to fix them"
            )
        version = 1 if begun else view.header.format_version
        records, unreadable = list(view.records.values()), view.unreadable or []
        before = ledger_root(header.model_copy(update={"format_version": version}), records, unreadable)
        if version < FORMAT_VERSION:
            write_metadata(store, header, [GROUP_FILE])
            close_store(store, header)
        return ConversionReport(
            store=store,
            format_version_before=version,
            format_version=FORMAT_VERSION,
            root_sha256_before=before,
            root_sha256=ledger_root(header, records, unreadable),
        )
