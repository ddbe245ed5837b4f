"""Paths from a caller or a command line: the check before one becomes a `Path`, and errors that another path avoids.

Every package may import this module.
"""

import errno
import os
from pathlib import Path
from typing import Any, Final

from .errors import SettingsError

_PATH_ERRORS: Final = (
    errno.ENOENT,
    errno.EEXIST,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENAMETOOLONG,
    errno.ELOOP,
)


def is_path_error(error: OSError) -> bool:
    """Whether an error is about the path itself, so that another path helps; a full disk or broken device is not."""
    return error.errno in _PATH_ERRORS


def path_text(name: str, path: Any, kind: str = "a path") -> str:
    """The text of the path (or, as `kind` says, the path or URL) that was passed as `name`.

    Raises:
        SettingsError: It is not a path, is empty, or contains a NUL character, which no file name can.
    """
    text = path if isinstance(path, str) else os.fspath(path) if isinstance(path, os.PathLike) else None
    if not isinstance(text, str):
        raise SettingsError(f"{name} must be {kind}, not {type(path).__name__}")
    if not text:
        raise SettingsError(f"{name} is empty: pass {kind}, or '.' for the current folder")
    if "\0" in text:
        raise SettingsError(f"{name}: {text!r} contains a NUL character, which no file name can contain")
    return text


def is_absent(path: Path) -> bool:
    """Whether the path does not exist, as opposed to not being readable."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: an impossible file name
        return True
    except OSError:
        return False
    return False
