"""Check for free disk space before writing; `filesystem_errors.py` has the error for a disk that fills up."""

from pathlib import Path

from ....errors import StoreError
from .filesystem_errors import free_bytes


def require_space(folder: Path, needed: int, purpose: str) -> None:
    """Check that a disk has `needed` bytes free; `folder` or a folder above it exists.

    Raises:
        StoreError: it does not; the message gives both numbers.
    """
    if needed > (free := free_bytes(folder)):
        raise StoreError(
            f"not enough space for {purpose} on the disk of {folder}: {needed:,} bytes are needed and {free:,} are "
            "free. Free some space or choose another folder, then run the command again"
        )
