"""What a path is that is not a regular file, in words."""

import stat
from typing import Final

LINK: Final = "a symbolic link"
FOLDER: Final = "a folder"
_KINDS: Final = {
    stat.S_IFLNK: LINK,
    stat.S_IFDIR: FOLDER,
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def kind_of(mode: int) -> str | None:
    """The kind of a file with this `st_mode`; `None` for a regular file.

    >>> kind_of(stat.S_IFIFO | 0o600)
    'a pipe'
    """
    return None if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "a special file")
