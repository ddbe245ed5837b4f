"""No test cuts the power, so none has to wait for the disk: a sync of a file or folder only checks its descriptor."""

import os
import stat

_SYNC = os.fsync


def check_descriptor(descriptor: int) -> None:
    """Take the place of os.fsync; pipes and devices refuse it as they do elsewhere.

    Raises:
        OSError: The descriptor is closed, or cannot be synced.
    """
    mode = os.fstat(descriptor).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        _SYNC(descriptor)


def install() -> None:
    """Replace os.fsync in this process and in those that it forks; tests of syncs replace it by their own."""
    setattr(os, "fsync", check_descriptor)  # noqa: B010


def remove() -> None:
    """Sync again, where times matter."""
    setattr(os, "fsync", _SYNC)  # noqa: B010
