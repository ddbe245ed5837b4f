"""Signing a finished store: after it was verified, its root digest and header get a signature beside them."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ....errors import StoreError
from ....progress import Progress, Silent
from ..access.store_files import LocalFiles
from ..file_names import MANIFEST_FILE, SIGNATURE_FILE
from ..filesystem.durable_files import remove_leftovers, write_atomically
from ..filesystem.locks import RunLock
from ..reading.root_digest import version_note
from ..records.digest_list import file_digest, parse_manifest, write_manifest
from ..signatures.signature import make_signature
from .verification import examine, view_root

if TYPE_CHECKING:
    from ..signatures.signing_keys import SigningKey


@dataclass(frozen=True, kw_only=True, slots=True)
class SigningReport:
    """What was signed, and by which key."""

    store: Path
    root_sha256: str
    signed_by: str
    """As `ssh-keygen -l` shows the key."""
    public_key: str


def sign(store: Path, key: "SigningKey", *, quick: bool = False, progress: Progress | None = None) -> SigningReport:
    """Verify a finished store and sign it; a signature that is there already is replaced.

    `quick` reads no shard file. After a crash at any moment the same call completes it.

    Raises:
        StoreError: another run writes to the store, it is unfinished or damaged, or in format 1.
    """
    with RunLock(store):
        remove_leftovers(store)
        view, problems = examine(LocalFiles(store), quick=quick, progress=progress or Silent())
        if view.header.format_version == 1:
            raise StoreError(f"{version_note(str(store))} Convert it before signing it")
        damage = [problem for problem in problems if not _is_about_signature(problem.key, problem.what)]
        root = view_root(view)
        if damage or root is None:
            raise StoreError(
                f"{store} is not signed: {damage[0] if damage else 'it is unfinished'}. "
                f"`medalign teacher verify {store}` shows all, and what helps"
            )
        write_atomically(store / SIGNATURE_FILE, make_signature(view.header, root, key))
        digests = parse_manifest((store / MANIFEST_FILE).read_bytes(), str(store / MANIFEST_FILE))
        write_manifest(store, {**digests, SIGNATURE_FILE: file_digest(store / SIGNATURE_FILE)})
        return SigningReport(
            store=store, root_sha256=root, signed_by=key.public.fingerprint, public_key=key.public.text
        )


def _is_about_signature(key: str, what: str) -> bool:
    """What signing again puts right: an old signature, or one that the manifest does not list yet."""
    return key == SIGNATURE_FILE or (key == MANIFEST_FILE and what == f"does not list {SIGNATURE_FILE} (1 in all)")
