"""The files of a finished store, as they are listed in its manifest: names that are safe, bytes that are checked."""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from ...errors import StoreError
from ..store.access.store_files import LocalFiles
from ..store.checking.unaltered import require_unaltered
from ..store.file_names import MANIFEST_FILE, SIGNATURE_FILE
from ..store.filesystem.plain_files import open_plain
from ..store.format.header import StoreHeader
from ..store.reading.rows import damage
from ..store.records.digest_list import parse_manifest
from ..store.signatures.signature import damaged_signature, is_signed
from ..store.store_errors import DamagedStore

_BLOCK: Final = 1 << 20
_LONGEST_NAME: Final = 200
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def finished_store(path: Path) -> tuple[StoreHeader, dict[str, str]]:
    """Header and manifest (path inside the store -> SHA-256) of a finished local store.

    Raises:
        StoreError: it is no store, unfinished, its index, ledger or manifest is damaged, a listed file is not there, or
            its root digest or signature is not that of what it holds.
    """
    header = require_unaltered(path).header
    digests = parse_manifest(LocalFiles(path).read(MANIFEST_FILE), str(path / MANIFEST_FILE))
    check_names(digests, str(path))
    require_listed_signature(path, digests)
    if gone := [key for key in digests if not (path / key).exists()]:
        raise damage(str(path), f"{path / gone[0]} is gone, and {MANIFEST_FILE} lists it ({len(gone)} in all)")
    return header, digests


def require_listed_signature(path: Path, digests: dict[str, str]) -> None:
    """Check that a signature goes along with its store.

    Raises:
        StoreError: it is not listed.
        DamagedStore: it is listed and lost.
    """
    if is_signed(path) == (SIGNATURE_FILE in digests):
        return
    if SIGNATURE_FILE in digests:
        raise DamagedStore(f"{path / SIGNATURE_FILE} is gone. {damaged_signature(path)}")
    raise StoreError(
        f"{path / SIGNATURE_FILE} is not listed in {MANIFEST_FILE} and would stay behind, as after an interrupted "
        f"`medalign store sign`: repeat that, or `medalign store repair {path}`, which lists it, or remove the file"
    )


def check_names(names: Iterable[str], location: str) -> None:
    """Accept only names that a store can have, whoever wrote the list.

    Raises:
        DamagedStore: a name would leave the store's folder, hide in it, or be a file and a folder at once.
    """
    known = set(names)
    for name in known:
        parts = name.split("/")
        if len(name) > _LONGEST_NAME or not all(_PART.fullmatch(part) for part in parts):
            raise DamagedStore(f"{location} lists {name[:_LONGEST_NAME]!r}, which is no name of a store's file")
        if any("/".join(parts[:depth]) in known for depth in range(1, len(parts))):
            raise DamagedStore(f"{location} lists {name!r} below another file")
    if MANIFEST_FILE in known:
        raise DamagedStore(f"{location} lists {MANIFEST_FILE}, which cannot hold its own digest")


def read_checked(file: Path, expected: str, key: str) -> Iterator[bytes]:
    """The blocks of a file; after the last one its SHA-256 is compared.

    Raises:
        DamagedStore: the file is gone, or its digest is not `expected`.
    """
    digest = hashlib.sha256()
    try:
        with os.fdopen(open_plain(file), "rb") as opened:
            while block := opened.read(_BLOCK):
                digest.update(block)
                yield block
    except FileNotFoundError:
        raise DamagedStore(f"{file} is gone, although the store is finished") from None
    if digest.hexdigest() != expected:
        raise wrong_digest(str(file), key, digest.hexdigest(), expected)


def wrong_digest(source: str, key: str, found: str, expected: str) -> DamagedStore:
    return DamagedStore(f"{source} is damaged: its SHA-256 is {found}, {MANIFEST_FILE} says {expected} of {key}")
