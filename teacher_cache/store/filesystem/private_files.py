"""Secrets in files: one that other users of the machine can read is no secret."""

import os
import stat
from netrc import NetrcParseError, netrc
from pathlib import Path
from urllib.parse import urlsplit

from ....errors import InputError


def check_private(path: Path, what: str) -> None:
    """Check that nobody but its owner may read a file; `what` names its content.

    Raises:
        InputError: its group or others may.
        OSError: it does not exist or cannot be looked at.
    """
    mode = path.stat().st_mode
    if mode & 0o077:
        raise InputError(
            f"{path} holds {what} and is open to others ({stat.filemode(mode)}): `chmod 600 {path}`, and change the "
            "secret if somebody may have read it"
        )


def check_netrc(url: str) -> None:
    """The same for the file of passwords, if it has one for this server.

    Raises:
        InputError: others may read it.
    """
    path = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    try:
        found = netrc(path).authenticators(urlsplit(url).hostname or "")
    except (OSError, NetrcParseError):
        return  # then nothing is taken from it
    if found is not None:
        check_private(path, "passwords")
