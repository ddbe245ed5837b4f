"""manifest-sha256.txt: the digest of every other file, in the format of `sha256sum --check`. It is written last."""

import os
import re
from pathlib import Path

from ....digests import sha256_of
from ..access.store_files import StoreFiles
from ..file_names import LOCK_FILE, MANIFEST_FILE
from ..filesystem.durable_files import write_atomically
from ..filesystem.plain_files import open_plain
from ..store_errors import DamagedStore
from .schemas import MOST_LIST, check_text

_LINE = re.compile(rb"[0-9a-f]{64}  [!-~]{1,200}\n")
"""A digest and a path of printable ASCII."""


def write_manifest(store: Path, digests: dict[str, str]) -> None:
    """Write the manifest of a store; `digests` maps paths inside the store to SHA-256 digests."""
    write_atomically(store / MANIFEST_FILE, _render(digests))


def parse_manifest(data: bytes, where: str) -> dict[str, str]:
    """Parse a manifest: path inside the store -> SHA-256.

    Raises:
        DamagedStore: it is not exactly a sorted list of digests and paths.
    """
    check_text(data, MOST_LIST, where)
    lines = data.splitlines(keepends=True)
    if not all(map(_LINE.fullmatch, lines)):
        raise DamagedStore(f"{where} is damaged: it is not a list of digests and paths")
    digests = {line[66:-1].decode(): line[:64].decode() for line in lines}
    if _render(digests) != data:
        raise DamagedStore(f"{where} is damaged: it is not a sorted list of digests and paths")
    return digests


def _render(digests: dict[str, str]) -> bytes:
    return "".join(f"{digests[key]}  {key}\n" for key in sorted(digests)).encode()


def stored_files(store: Path) -> list[str]:
    """Sorted paths inside the store of all files except the manifest and the lock file."""
    root = os.fspath(store)
    keys: set[str] = set()
    for folder, folders, files in os.walk(root):
        inside = os.path.relpath(folder, root).replace(os.sep, "/")
        links = [name for name in folders if Path(folder, name).is_symlink()]  # links are listed, not followed
        keys.update(name if inside == "." else f"{inside}/{name}" for name in (*files, *links))
    return sorted(keys - {MANIFEST_FILE, LOCK_FILE})


def stored_digest(files: StoreFiles, key: str, most: int | None = None) -> str:
    """SHA-256 of a file of a store on a disk or behind a URL, in hex.

    Raises:
        DamagedStore: it has more than `most` bytes.
    """
    with files.open(key) as file:
        try:
            return sha256_of(file, most=most)
        except ValueError as error:
            raise DamagedStore(f"{key} has {error}") from error


def file_digest(file: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with os.fdopen(open_plain(file), "rb") as opened:
        return sha256_of(opened)
