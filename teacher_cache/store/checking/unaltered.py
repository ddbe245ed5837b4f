"""The check by every command that copies, shares or extends a store: does its content match its root digest?

Only small files are read; `verify` reads the rows too.
"""

from collections.abc import Sequence
from pathlib import Path

from ..access.store_files import LocalFiles, StoreFiles
from ..file_names import FAILURES_FILE, GROUP_FILE, INDEX_FILE, MANIFEST_FILE, SIGNATURE_FILE
from ..format.header import StoreHeader
from ..reading.reader import TeacherStore, open_store
from ..reading.root_digest import ledger_root
from ..reading.rows import damage
from ..records.digest_list import parse_manifest, stored_digest
from ..records.ledger import read_record, read_unreadable, record_key
from ..records.zarr_metadata import read_header
from ..signatures.signature import check_signature, damaged_signature, is_signed
from ..store_errors import GET_IT_AGAIN, AlteredStore, DamagedStore


def require_root(store: TeacherStore) -> None:
    """Check that the root digest matches header, index and failures.

    Raises:
        AlteredStore: it does not, although these files match the manifest.
        DamagedStore: it does not, because of accidental damage.
    """
    computed = store.recomputed_root()
    if computed != store.root_sha256:
        _require_listed(store.files, [GROUP_FILE, INDEX_FILE, FAILURES_FILE])
        raise _altered(
            store.location, f"its index has the root digest {store.root_sha256}, but its content has {computed}"
        )


def require_unaltered(path: Path) -> TeacherStore:
    """Open a finished local store and check that its root digest matches header, index, failures and ledger.

    A signature must be valid for that root digest; `verify --signed-by` checks who made it. Rows are not read.

    Raises:
        AlteredStore: content was changed, with file digests that match.
        StoreError: it is not a store, is unfinished, or its index or ledger is damaged.
    """
    store = open_store(path)
    require_root(store)
    _require_listed(store.files, [record_key(shard) for shard in range(store.header.shards)])
    root = _root_of_ledger(path, store.header)
    if root != store.root_sha256:
        raise _altered(store.location, f"its index has the root digest {store.root_sha256}, but its ledger has {root}")
    if is_signed(path):
        _require_signed(path, store.header, root)
    return store


def require_signed_state(path: Path) -> None:
    """Check that a store without a manifest matches its signature, if it has one, because nothing else protects it.

    Raises:
        AlteredStore: it does not match.
        StoreError: its ledger is damaged.
    """
    if not is_signed(path) or (path / MANIFEST_FILE).is_file():
        return
    header = read_header(path)
    _require_signed(path, header, _root_of_ledger(path, header))


def _root_of_ledger(path: Path, header: StoreHeader) -> str:
    return ledger_root(header, [read_record(path, shard) for shard in range(header.shards)], read_unreadable(path))


def _require_signed(path: Path, header: StoreHeader, root: str) -> None:
    """Check that the signature of a local store is intact and valid for this header and root digest.

    Raises:
        AlteredStore: it is valid for another header or root digest.
        DamagedStore: it cannot be checked.
    """
    checked = check_signature(LocalFiles(path).read(SIGNATURE_FILE), header, root, None)
    if not checked.problems:
        return
    what = f"{SIGNATURE_FILE} {checked.problems[0]}"
    if checked.contradicts or _is_listed(path):
        raise _altered(str(path), what)
    raise DamagedStore(f"{path}: {what}. {damaged_signature(path)}")


def _is_listed(path: Path) -> bool:
    """Whether the signature file matches the manifest, so that a wrong signature is not accidental damage."""
    try:
        listed = parse_manifest(LocalFiles(path).read(MANIFEST_FILE), MANIFEST_FILE)
    except FileNotFoundError:
        return False
    return listed.get(SIGNATURE_FILE) == stored_digest(LocalFiles(path), SIGNATURE_FILE)


def _require_listed(files: StoreFiles, keys: Sequence[str]) -> None:
    """Check that files match the manifest.

    Raises:
        DamagedStore: one of them does not.
    """
    listed = parse_manifest(files.read(MANIFEST_FILE), f"{MANIFEST_FILE} of {files.location}")
    for key in keys:
        if key in listed and not files.exists(key):
            raise damage(files.location, f"{files.location}/{key} is missing, although the store is finished")
        if key in listed and (digest := stored_digest(files, key)) != listed[key]:
            what = (
                f"{files.location}/{key} is damaged: its SHA-256 is {digest}, not {listed[key]} as in {MANIFEST_FILE}"
            )
            raise damage(files.location, what)


def _altered(location: str, what: str) -> AlteredStore:
    return AlteredStore(f"{location} was changed after it was finished: {what}. Do not repair it: {GET_IT_AGAIN}")
