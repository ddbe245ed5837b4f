"""Room on a disk, before it is missed; `filesystem_errors.py` has the errors after."""

from pathlib import Path

from ....errors import StoreError
from .filesystem_errors import free_bytes


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
