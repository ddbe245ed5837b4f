"""The files that a finished store's manifest lists: validation of their names and of their bytes."""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from ...errors import StoreError
from ...plain_text import as_typed
from ..store.access.store_files import LocalFiles
from ..store.checking.unaltered import require_unaltered
from ..store.file_names import MANIFEST_FILE, SIGNATURE_FILE
from ..store.filesystem.plain_files import open_plain
from ..store.reading.reader import TeacherStore
from ..store.reading.rows import damage
from ..store.records.digest_list import parse_manifest
from ..store.signatures.signature import damaged_signature, is_signed
from ..store.store_errors import DamagedStore

_BLOCK: Final = 1 << 20
_LONGEST_NAME: Final = 200
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def finished_store(path: Path) -> tuple[TeacherStore, dict[str, str]]:
    """A finished local store, and its manifest (path inside the store -> SHA-256).

    Raises:
        StoreError: it is not a store, it is unfinished, its index, ledger or manifest is damaged, a listed file is
            missing, or its root digest or signature does not match its content.
    """
    store = require_unaltered(path)
    digests = parse_manifest(LocalFiles(path).read(MANIFEST_FILE), str(path / MANIFEST_FILE))
    check_names(digests, str(path))
    require_listed_signature(path, digests)
    if absent := [key for key in digests if not (path / key).exists()]:
        raise damage(str(path), f"{path / absent[0]} is missing, but {MANIFEST_FILE} lists it ({len(absent)} in total)")
    return store, digests


def require_listed_signature(path: Path, digests: dict[str, str]) -> None:
    """Check that a signature is listed in the manifest, so that it is copied with its store.

    Raises:
        StoreError: it exists, but is not listed.
        DamagedStore: it is listed, but missing.
    """
    if is_signed(path) == (SIGNATURE_FILE in digests):
        return
    if SIGNATURE_FILE in digests:
        raise DamagedStore(f"{path / SIGNATURE_FILE} is missing. {damaged_signature(path)}")
    raise StoreError(
        f"{path / SIGNATURE_FILE} is not listed in {MANIFEST_FILE}, so it would not be copied; `medalign store sign` "
        f"was probably interrupted: run it again, or `medalign store repair {as_typed(path)}`, which lists "
        "it, or remove the file"
    )


def check_names(names: Iterable[str], location: str) -> None:
    """Check that all names in an untrusted list are valid for files of a store.

    Raises:
        DamagedStore: a name would be outside the store's folder, be hidden, or be both a file and a folder.
    """
    known = set(names)
    for name in known:
        parts = name.split("/")
        if len(name) > _LONGEST_NAME or not all(_PART.fullmatch(part) for part in parts):
            raise DamagedStore(f"{location} lists {name[:_LONGEST_NAME]!r}, which is not a valid name in a store")
        if any("/".join(parts[:depth]) in known for depth in range(1, len(parts))):
            raise DamagedStore(f"{location} lists {name!r}, which is below another file")
    if MANIFEST_FILE in known:
        raise DamagedStore(f"{location} lists {MANIFEST_FILE}, which cannot contain its own digest")


def read_checked(file: Path, expected: str, key: str) -> Iterator[bytes]:
    """Yield the blocks of a file; its SHA-256 is compared after the last one.

    Raises:
        DamagedStore: the file is missing, or its digest is not `expected`.
    """
    digest = hashlib.sha256()
    try:
        with os.fdopen(open_plain(file), "rb") as opened:
            while block := opened.read(_BLOCK):
                digest.update(block)
                yield block
    except FileNotFoundError:
        raise DamagedStore(f"{file} is missing, although the store is finished") from None
    if digest.hexdigest() != expected:
        raise wrong_digest(str(file), key, digest.hexdigest(), expected)


def wrong_digest(source: str, key: str, actual: str, expected: str) -> DamagedStore:
    return DamagedStore(f"{source} is damaged: its SHA-256 is {actual}, but {MANIFEST_FILE} lists {expected} for {key}")
