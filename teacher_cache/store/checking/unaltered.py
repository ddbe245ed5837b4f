"""At the door of every command that passes a store on or adds to it: is it what its root digest vouches for?

Small files alone are read; `verify` reads the rows too.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from ..access.store_files import LocalFiles, StoreFiles
from ..file_names import FAILURES_FILE, GROUP_FILE, INDEX_FILE, MANIFEST_FILE, SIGNATURE_FILE
from ..format.header import StoreHeader
from ..reading.reader import TeacherStore, open_store
from ..reading.root_digest import ledger_root
from ..reading.rows import damage
from ..records.digest_list import parse_manifest
from ..records.ledger import read_record, read_unreadable, record_key
from ..records.zarr_metadata import read_header
from ..signatures.signature import check_signature, damaged_signature, is_signed
from ..store_errors import GET_IT_AGAIN, AlteredStore, DamagedStore

_PART_BYTES = 1 << 20


def require_root(store: TeacherStore) -> None:
    """Check that the root digest is that of header, index and failures.

    Raises:
        AlteredStore: it is not, and the manifest fits.
        DamagedStore: it is not, as after an accident.
    """
    found = store.recomputed_root()
    if found != store.root_sha256:
        _require_listed(store.files, [GROUP_FILE, INDEX_FILE, FAILURES_FILE])
        raise _altered(
            store.location, f"its index has the root digest {store.root_sha256}, but what it holds has {found}"
        )


def require_unaltered(path: Path) -> TeacherStore:
    """Open a finished local store whose root digest is that of header, index, failures and ledger.

    A signature must be of that root digest; who made it is for `verify --signed-by` to say. Rows are not read.

    Raises:
        AlteredStore: something was changed behind digests that fit.
        StoreError: it is no store, unfinished, or its index or ledger is damaged.
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
    """Check that a store without a manifest, which nothing else vouches for, is what its signature says, if it has one.

    Raises:
        AlteredStore: it is not.
        StoreError: its ledger is damaged.
    """
    if not is_signed(path) or (path / MANIFEST_FILE).is_file():
        return
    header = read_header(path)
    _require_signed(path, header, _root_of_ledger(path, header))


def _root_of_ledger(path: Path, header: StoreHeader) -> str:
    return ledger_root(header, [read_record(path, shard) for shard in range(header.shards)], read_unreadable(path))


def _require_signed(path: Path, header: StoreHeader, root: str) -> None:
    """Check that the signature of a local store is whole, and of this header and root digest.

    Raises:
        AlteredStore: it is of others.
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
    """Whether the signature is what the manifest lists, so that no accident explains that it is wrong."""
    try:
        listed = parse_manifest(LocalFiles(path).read(MANIFEST_FILE), MANIFEST_FILE)
    except FileNotFoundError:
        return False
    return listed.get(SIGNATURE_FILE) == _digest(LocalFiles(path), SIGNATURE_FILE)


def _require_listed(files: StoreFiles, keys: Sequence[str]) -> None:
    """Check that files are what the manifest lists.

    Raises:
        DamagedStore: one is not.
    """
    listed = parse_manifest(files.read(MANIFEST_FILE), f"{MANIFEST_FILE} of {files.location}")
    for key in keys:
        if key in listed and not files.exists(key):
            raise damage(files.location, f"{files.location}/{key} is gone, although the store is finished")
        if key in listed and (found := _digest(files, key)) != listed[key]:
            what = f"{files.location}/{key} is damaged: its SHA-256 is {found}, {MANIFEST_FILE} says {listed[key]}"
            raise damage(files.location, what)


def _digest(files: StoreFiles, key: str) -> str:
    """SHA-256 of a file of any size."""
    digest = hashlib.sha256()
    with files.open(key) as file:
        while part := file.read(_PART_BYTES):
            digest.update(part)
    return digest.hexdigest()


def _altered(location: str, what: str) -> AlteredStore:
    return AlteredStore(f"{location} was changed after it was finished: {what}. Do not repair it: {GET_IT_AGAIN}")
