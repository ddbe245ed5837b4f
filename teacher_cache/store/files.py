"""Files that are either whole or not there: bytes, fsync, rename, fsync of the folder."""

import os
from pathlib import Path

PARTIAL_SUFFIX = ".partial"


def write_atomically(path: Path, data: bytes) -> None:
    """Replace `path` with `data`; after a crash at any moment it holds the old bytes or the new ones."""
    partial = path.with_name(path.name + PARTIAL_SUFFIX)
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    sync_folder(path.parent)


def make_folders(folder: Path) -> None:
    """Make a folder and those above it, so that their names survive a crash too."""
    if not folder.is_dir():
        make_folders(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def sync_tree(folder: Path) -> None:
    """Bring everything below and including a small folder to disk."""
    for path in (*folder.rglob("*"), folder):
        sync_folder(path)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
