"""The check of a path from a caller or a command line, before it becomes a `Path`: `Path("")` is the current folder.

Every package may import this module.
"""

import os
from typing import Any

from .errors import SettingsError


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
