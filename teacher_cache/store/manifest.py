"""manifest-sha256.txt: the digest of every other file, as `sha256sum --check` reads it. Written last."""

import hashlib
from pathlib import Path

from .files import write_atomically
from .format import MANIFEST_FILE
from .problems import DamagedStore


def write_manifest(store: Path, known: dict[str, str]) -> None:
    """List all files of a store; `known` gives digests (by path inside the store) that need no second
    reading."""
    lines = [f"{known.get(key) or file_digest(store / key)}  {key}\n" for key in stored_files(store)]
    write_atomically(store / MANIFEST_FILE, "".join(lines).encode())


def read_manifest(store: Path) -> dict[str, str]:
    """Path inside the store -> SHA-256.

    Raises:
        DamagedStore: a line is not a digest and a path.
    """
    lines = (store / MANIFEST_FILE).read_text(encoding="utf-8", errors="replace").splitlines()
    pairs = [line.split("  ", 1) for line in lines]
    if any(len(pair) != 2 for pair in pairs):
        raise DamagedStore(f"{store / MANIFEST_FILE} is damaged: a line is not a digest and a path")
    return {key: digest for digest, key in pairs}


def is_finished(store: Path) -> bool:
    return (store / MANIFEST_FILE).is_file()


def stored_files(store: Path) -> list[str]:
    """Paths inside the store of all its files but the manifest, sorted."""
    files = (file for file in store.rglob("*") if file.is_file() or file.is_symlink())
    return sorted(key for file in files if (key := file.relative_to(store).as_posix()) != MANIFEST_FILE)


def file_digest(file: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
