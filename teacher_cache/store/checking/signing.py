"""Signing a finished store: it is verified, then a signature of its root digest and header is added."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ....errors import StoreError
from ....plain_text import as_typed
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
    """The signed store, its root digest and the key."""

    store: Path
    root_sha256: str
    signed_by: str
    """The key's fingerprint, as `ssh-keygen -l` shows it."""
    public_key: str


def sign(store: Path, key: "SigningKey", *, quick: bool = False, progress: Progress | None = None) -> SigningReport:
    """Verify a finished store and sign it; an existing signature is replaced.

    With `quick`, no shard file is read. After a crash at any time the same call completes the signature.

    Raises:
        StoreError: another run is writing to the store, or it is unfinished, damaged or in format 1.
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
                f"{store} cannot be signed: {damage[0] if damage else 'it is unfinished'}. "
                f"`medalign store verify {as_typed(store)}` lists all problems and how to fix them"
            )
        write_atomically(store / SIGNATURE_FILE, make_signature(view.header, root, key))
        digests = parse_manifest((store / MANIFEST_FILE).read_bytes(), str(store / MANIFEST_FILE))
        write_manifest(store, {**digests, SIGNATURE_FILE: file_digest(store / SIGNATURE_FILE)})
        return SigningReport(
            store=store, root_sha256=root, signed_by=key.public.fingerprint, public_key=key.public.text
        )


def _is_about_signature(key: str, what: str) -> bool:
    """Whether signing again fixes a problem: an outdated signature, or one that the manifest does not list yet."""
    return key == SIGNATURE_FILE or (key == MANIFEST_FILE and what == f"does not list {SIGNATURE_FILE} (1 in total)")
