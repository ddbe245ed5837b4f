"""Which files of a folder are images: known suffixes, and nothing that a system or an archive left behind."""

from collections.abc import Iterable
from pathlib import Path, PurePosixPath

IMAGE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".tif", ".tiff", ".bmp", ".webp", ".gif", ".ppm", ".pgm"}
    | {".jp2", ".jpx", ".jpf", ".j2k", ".j2c", ".jpc"}
    | {".dcm", ".dicom", ".dic", ".ima"}
)

SYSTEM_FOLDERS = frozenset(
    {"__MACOSX", "@eaDir", "#recycle", "#snapshot", "$RECYCLE.BIN", "System Volume Information", "lost+found"}
)
"""What macOS archives, Synology and QNAP disks and Windows keep among a user's files."""


def is_system_name(name: str) -> bool:
    """Whether a file or folder is hidden (`.Trash-0`), AppleDouble (`._a.png`) or a system's own."""
    return name.startswith(".") or name in SYSTEM_FOLDERS


def listed_images(root: Path, suffixes: Iterable[str] = IMAGE_SUFFIXES) -> list[str]:
    """Images anywhere under `root` by their suffix, sorted, relative to it; hidden and system ones are not listed."""
    known = frozenset(suffixes)
    paths = (path for path in root.rglob("*") if path.suffix.lower() in known)
    names = (path.relative_to(root).as_posix() for path in paths)
    return sorted(name for name in names if not any(map(is_system_name, PurePosixPath(name).parts)))
