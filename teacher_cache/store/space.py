"""Room on a disk, before it is missed and after."""

import shutil
from pathlib import Path

from ...errors import StoreError
from .trouble import FULL


def is_full(error: OSError) -> bool:
    """Whether a write failed because the disk, or the user's share of it, is full."""
    return error.errno in FULL


def require_space(folder: Path, needed: int, purpose: str) -> None:
    """Check that a disk has room for `needed` bytes; `folder` or a folder above it exists.

    Raises:
        StoreError: it has not; the message has both numbers.
    """
    if needed > (free := free_bytes(folder)):
        raise StoreError(
            f"the disk of {folder} is too full for {purpose}: {needed:,} bytes are needed and {free:,} are free. Free "
            "some, or give another place, then repeat the command"
        )


def free_bytes(folder: Path) -> int:
    """Bytes that this user may still write at a folder, or where it would be."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free
