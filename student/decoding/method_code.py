"""The identity of decoding methods that other packages or the user's own files add."""

import hashlib
import sys
from functools import cache
from inspect import getsource
from pathlib import Path

from ...digests import sha256_of
from .core.method import Method

_OWN = __name__.partition(".")[0]


def code_of(method: Method) -> str | None:
    """SHA-256 of the source of a method that is not medalign's; None for medalign's, which `code_versions` covers.

    All `.py` files count if the method is in a package, else its module, or its function if it has no file.
    """
    return None if method.answer.__module__.partition(".")[0] == _OWN else _digest(method)


@cache
def _digest(method: Method) -> str:
    """Computed once per process: what it loaded counts, not what is in the file later."""
    name = method.answer.__module__
    top = sys.modules.get(name.partition(".")[0])
    folders = [Path(folder) for folder in getattr(top, "__path__", ())]
    files = sorted(path for folder in folders for path in folder.rglob("*.py"))
    own = getattr(sys.modules.get(name), "__file__", None)
    if not files and own:
        files = [Path(own)]
    try:
        parts = [sha256_of(path) for path in files] or [getsource(method.answer)]
    except (OSError, TypeError):  # defined in an interactive session
        parts = [repr(method.answer.__code__.co_code)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
