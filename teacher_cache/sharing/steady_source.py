"""Detecting that a store was replaced while it was being read."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from ...errors import StoreError
from ..store.access.remote import open_files
from ..store.access.store_files import StoreFiles
from ..store.file_names import MANIFEST_FILE
from ..store.reading.reader import TeacherStore
from ..store.records.index import read_summary
from ..store.records.zarr_metadata import why_absent
from ..store.store_errors import UnfinishedStore


def unfinished(location: str) -> UnfinishedStore:
    """The error for a place without a manifest, which a path that does not exist is too."""
    absent = why_absent(location)
    missing = f"and this path does not exist{absent}" if absent else f"it has no {MANIFEST_FILE}"
    return UnfinishedStore(f"{location} is not a finished store{', ' if absent else ': '}{missing}")


class ChangedStore(StoreError):
    """A store was changed while it was being read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class State:
    """The state of a finished store: the digest of its manifest, which lists the digests of all other files."""

    manifest_sha256: str

    @classmethod
    def of_manifest(cls, manifest: bytes) -> "State":
        return cls(manifest_sha256=hashlib.sha256(manifest).hexdigest())

    @classmethod
    def of(cls, files: StoreFiles) -> "State":
        """Read the current state.

        Raises:
            UnfinishedStore: there is no manifest.
        """
        try:
            return cls.of_manifest(files.read(MANIFEST_FILE))
        except FileNotFoundError as error:
            raise unfinished(files.location) from error

    def require(self, files: StoreFiles, root_sha256: str, advice: str) -> None:
        """Check that the store, whose root digest was `root_sha256`, is still in this state.

        Raises:
            ChangedStore: it is not; the message has both root digests.
        """
        try:
            if State.of(files) == self:
                return
            now = _root(files)
        except UnfinishedStore:
            now = f"unknown, because it has no {MANIFEST_FILE}"
        raise ChangedStore(
            f"{files.location} changed while it was being read: its root digest was {root_sha256} and is {now} now. "
            f"{advice}"
        )


def opened(files: StoreFiles, store: TeacherStore) -> State:
    """Open a store and remember its state, which is read first.

    Raises:
        StoreError: it cannot be opened.
    """
    try:
        manifest = files.read(MANIFEST_FILE)
    except FileNotFoundError:
        manifest = b""  # `store.open` raises a more specific error
    store.open()
    return State.of_manifest(manifest)


def after_change(out: Path) -> str:
    """The advice for a source that changed while its rows were copied to `out`."""
    return f"{out} is unfinished and may contain rows from before the change: remove it, then run the command again"


def _root(files: StoreFiles) -> str:
    """The current root digest, read again."""
    try:
        return read_summary(open_files(files.location)).root_sha256 or "none"
    except (StoreError, OSError):
        return "unknown, because its index cannot be read"
