"""Find the image files in a folder: by suffix, without the files that systems and archives leave behind."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

IMAGE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".tif", ".tiff", ".bmp", ".dib", ".webp", ".gif"}
    | {".jp2", ".jpx", ".jpf", ".j2k", ".j2c", ".jpc", ".ppm", ".pgm", ".pnm", ".dcm", ".dicom"}
)
"""Suffixes that only images have."""

SYSTEM_NAMES = (
    ".*",
    "__MACOSX",
    "@eaDir",
    "@Recycle",
    "@Recently-Snapshot",
    "#recycle",
    "#snapshot",
    "$RECYCLE.BIN",
    "RECYCLER",
    "System Volume Information",
    "lost+found",
    "Thumbs.db",
    "ehthumbs.db",
    "desktop.ini",
)
"""Files and folders created by systems, file servers and editors: trash, snapshots, thumbnails."""


def is_system_name(name: str) -> bool:
    """Whether this is the name of a hidden (`.Trash-0`, AppleDouble `._a.png`) or system file or folder."""
    return any(fnmatch(name.lower(), pattern.lower()) for pattern in SYSTEM_NAMES)


@dataclass(frozen=True, kw_only=True, slots=True)
class FolderSearch:
    """The contents of a folder."""

    files: tuple[Path, ...]
    """All entries except folders and hidden or system files, sorted."""
    closed: tuple[str, ...]
    """Why folders could not be opened: one line each, without the name."""
    hidden: tuple[Path, ...]
    """Hidden and system files and folders, sorted; the folders are not searched."""


def search_folder(root: Path) -> FolderSearch:
    """Search a folder recursively, including linked folders, each folder once."""
    closed: list[str] = []
    files: list[Path] = []
    hidden: list[Path] = []
    visited = {_identity(folder) for folder in root.resolve().parents}  # links to a parent
    for folder, subfolders, names in os.walk(
        root, followlinks=True, onerror=lambda error: closed.append(_closed(error))
    ):
        subfolders.sort()
        if (identity := _identity(Path(folder))) in visited:
            subfolders.clear()
            continue
        visited.add(identity)
        hidden += [Path(folder, name) for name in (*subfolders, *names) if is_system_name(name)]
        subfolders[:] = [name for name in subfolders if not is_system_name(name)]
        files += [Path(folder, name) for name in names if not is_system_name(name)]
    return FolderSearch(files=tuple(sorted(files)), closed=tuple(closed), hidden=tuple(sorted(hidden)))


def listed_images(root: Path, suffixes: Iterable[str] = IMAGE_SUFFIXES) -> list[str]:
    """Images under `root` by suffix, sorted, relative to it; without hidden and system files."""
    known = frozenset(suffixes)
    paths = (path for path in search_folder(root).files if path.suffix.lower() in known)
    return [path.relative_to(root).as_posix() for path in paths]


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _closed(error: OSError) -> str:
    return f"a folder that cannot be opened: {error.strerror}"
