"""Check for free disk space before writing; `filesystem_errors.py` has the error for a disk that fills up."""

from pathlib import Path

from ....errors import StoreError
from ....plain_text import size_text
from .filesystem_errors import free_bytes


def require_space(folder: Path, needed: int, purpose: str) -> None:
    """Check that a disk has `needed` bytes free; `folder` or a folder above it exists.

    Raises:
        StoreError: it does not; the message gives both numbers.
    """
    if needed > (free := free_bytes(folder)):
        raise StoreError(
            f"not enough space for {purpose} on the disk of {folder}: it needs {size_text(needed)}, but "
            f"{size_text(free)} are free. Free some space or choose another folder, then run the command again"
        )
