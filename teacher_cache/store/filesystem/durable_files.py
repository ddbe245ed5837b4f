"""Writing a store's files: atomically, synced to disk, never through a link, with the permissions of the folder."""

import os
from contextlib import suppress
from pathlib import Path

from ....atomic import AtomicFile, is_temporary, remove_dead, restrict, sync_folder


def new_file(path: Path) -> AtomicFile:
    """A file of a store that gets its name when it is committed; whoever may read its folder may read it."""
    return AtomicFile(path, path.parent.stat().st_mode & 0o666)


def write_atomically(path: Path, data: bytes) -> None:
    """Replace the content of `path` with `data`; after a crash at any time it has either the old or the new bytes."""
    with new_file(path) as file:
        file.write(data)


def folder_mode(data_use: str) -> int | None:
    """Permission bits of a new store's folder: owner only unless the images are public; `None` follows the umask."""
    return None if data_use == "public" else 0o700


def open_to_all(store: Path) -> None:
    """Give a store that was built with owner-only permissions those of the umask, the store's own folder last."""
    for folder, _, files in os.walk(store, topdown=False):
        for name in files:
            restrict(Path(folder, name), 0o666 & ~_umask())
        restrict(Path(folder), 0o777 & ~_umask())


def _umask() -> int:
    """The umask. Reading it means setting it, so it is set to owner-only in case another thread creates files."""
    umask = os.umask(0o077)
    os.umask(umask)
    return umask


def make_folders(folder: Path, mode: int | None = None) -> None:
    """Create a folder and its parents, synced to disk so that their names survive a crash.

    They get the permissions of the parent that exists, or `mode` with the umask applied.
    """
    if folder.is_dir():
        return
    make_folders(folder.parent, mode)
    permissions = folder.parent.stat().st_mode & 0o777 if mode is None else mode
    with suppress(FileExistsError):  # another process created it first
        folder.mkdir(mode=permissions)
        if mode is None:
            restrict(folder, permissions)
        sync_folder(folder.parent)


def leftovers(store: Path) -> list[Path]:
    """medalign's temporary files inside a store, sorted."""
    paths = []
    for folder, _, files in os.walk(store):
        paths += [Path(folder, name) for name in files if is_temporary(name)]
    return sorted(paths)


def remove_leftovers(store: Path) -> list[Path]:
    """Remove temporary files that killed commands left in a store; returns them. Files in use are kept."""
    return [path for path in leftovers(store) if remove_dead(path)]
