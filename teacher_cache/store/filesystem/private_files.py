"""Permission checks for files with secrets: other users of the machine must not be able to read them."""

import os
import stat
from netrc import NetrcParseError, netrc
from pathlib import Path
from urllib.parse import urlsplit

from ....errors import InputError
from ....file_kinds import FOLDER, kind_of
from ....plain_text import as_typed


def check_private(path: Path, what: str) -> None:
    """Check that only its owner can read a file; `what` describes its content.

    Raises:
        InputError: it is a folder, or its group or other users have access.
        OSError: it does not exist or its permissions cannot be read.
    """
    mode = path.stat().st_mode
    if kind_of(mode) == FOLDER:
        raise InputError(f"{path} is a folder, not {what}: pass the file")
    if mode & 0o077:
        raise InputError(
            f"{path} contains {what} and other users can access it ({stat.filemode(mode)}): run "
            f"`chmod 600 {as_typed(path)}`, and replace the secret if someone may have read it"
        )


def check_netrc(url: str) -> None:
    """`check_private` for ~/.netrc (or the file in NETRC), if it has a password for this server.

    Raises:
        InputError: other users can read it.
    """
    path = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    try:
        login = netrc(path).authenticators(urlsplit(url).hostname or "")
    except (OSError, NetrcParseError):
        return  # no password is taken from it
    if login is not None:
        check_private(path, "passwords")
