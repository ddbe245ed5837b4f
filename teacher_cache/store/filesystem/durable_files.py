"""Files of a store as they are written: whole, on disk, through no link, and as open to others as its folder."""

import os
from contextlib import suppress
from pathlib import Path

from ....atomic import AtomicFile, is_temporary, remove_dead, restrict, sync_folder


def new_file(path: Path) -> AtomicFile:
    """A file of a store that takes its name when it is committed; readable for whoever may read its folder."""
    return AtomicFile(path, path.parent.stat().st_mode & 0o666)


def write_atomically(path: Path, data: bytes) -> None:
    """Replace `path` with `data`; after a crash at any moment it holds the old bytes or the new ones."""
    with new_file(path) as file:
        file.write(data)


def folder_mode(data_use: str) -> int | None:
    """Permission bits of a new store's folder: for its owner alone unless the images are public, else by the umask."""
    return None if data_use == "public" else 0o700


def open_to_all(store: Path) -> None:
    """Give a store that was built for its owner alone the permissions of the umask, its own folder last."""
    for folder, _, files in os.walk(store, topdown=False):
        for name in files:
            restrict(Path(folder, name), 0o666 & ~_umask())
        restrict(Path(folder), 0o777 & ~_umask())


def _umask() -> int:
    """Which can only be read by setting it; threads of this process may create files meanwhile, so it closes them."""
    umask = os.umask(0o077)
    os.umask(umask)
    return umask


def make_folders(folder: Path, mode: int | None = None) -> None:
    """Make a folder and those above it, so that their names survive a crash.

    They are as open as the folder that exists, or have `mode` less the umask.
    """
    if folder.is_dir():
        return
    make_folders(folder.parent, mode)
    wanted = folder.parent.stat().st_mode & 0o777 if mode is None else mode
    with suppress(FileExistsError):  # another process was faster
        folder.mkdir(mode=wanted)
        if mode is None:
            restrict(folder, wanted)
        sync_folder(folder.parent)


def leftovers(store: Path) -> list[Path]:
    """Temporary files of medalign's own inside a store."""
    found = []
    for folder, _, files in os.walk(store):
        found += [Path(folder, name) for name in files if is_temporary(name)]
    return sorted(found)


def remove_leftovers(store: Path) -> list[Path]:
    """Remove what killed commands left inside a store, but for files whose writer lives; returns what was removed."""
    return [path for path in leftovers(store) if remove_dead(path)]
