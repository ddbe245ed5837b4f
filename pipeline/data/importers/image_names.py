"""Find the images that a data set names: one rule for separators, absolute paths and Unicode forms.

Tables are written on other machines: with backslashes, with the absolute paths of their author, with `é` as one
character or as two (NFC, NFD). Every name is found under the image folder or rejected before a file is read.
"""

import os
import posixpath
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from ....errors import InputError
from ....path_checks import is_absent
from ....plain_text import counted
from ....progress import Progress
from ....teacher_cache.images.unicode_forms import StoredNames
from .missing_images import is_overlong, missing_message, overlong_message

_DRIVE = re.compile(r"^[A-Za-z]:")
_TRIED = 100
"""Number of absolute names from which their common prefix is determined."""


def locate_images(
    root: Path, names: Iterable[str], progress: Progress, places: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The path under `root`, as spelled on disk, of every distinct name.

    Backslashes separate folders. A name that leads out of `root` (absolute, with a drive, or by `..`) is looked up
    below `root` without the folders that all such names share. If the exact name does not exist, Unicode forms are
    matched. `places` says which row of a table has a name, for the message about missing images.

    Raises:
        InputError: Names lead elsewhere, or images are missing; one message lists all.
    """
    paths = {name: _posix(name) for name in names}
    overlong = [path for path in paths.values() if is_overlong(path)]
    if overlong:
        raise InputError(overlong_message(root, overlong, len(paths), _placed(paths, places)))
    paths |= _brought_inside(root, {name: path for name, path in paths.items() if _leads_out(path)}, progress)
    folders = StoredNames(root)
    located = {name: folders.find(path) for name, path in paths.items()}
    missing = [paths[name] for name, path in located.items() if path is None]
    if missing:
        raise InputError(missing_message(root, missing, len(paths), _placed(paths, places)))
    return {name: path for name, path in located.items() if path is not None}


def pick_root(folders: Sequence[Path], names: Iterable[str]) -> Path:
    """The common folder of absolute names that exist; else the first of the folders that has any of the names."""
    names = list(names)
    if names and all(Path(name).is_absolute() for name in names) and not is_absent(Path(names[0])):
        return Path(os.path.commonpath([Path(name).parent for name in names]))
    tried = [_posix(name) for name in names[:_TRIED]]
    for folder in folders:
        looked_up = StoredNames(folder)
        if any(looked_up.find(path) is not None for path in tried if not _leads_out(path)):
            return folder
    return folders[0]


def normalized(name: str) -> str:
    """A name in a canonical form, equal for all spellings of one path."""
    return unicodedata.normalize("NFC", _posix(name))


def _posix(name: str) -> str:
    return posixpath.normpath(_DRIVE.sub("/", name.replace("\\", "/")).replace("//", "/"))


def _leads_out(path: str) -> bool:
    return path == ".." or path.startswith(("/", "../"))


def _brought_inside(root: Path, foreign: Mapping[str, str], progress: Progress) -> dict[str, str]:
    """Map names that lead out of the root to paths below it; all lose the same folders, so they stay distinct.

    Raises:
        InputError: None is below the root, regardless of how many folders are removed.
    """
    if not foreign:
        return {}
    absolute = {
        name: posixpath.normpath(posixpath.join(root.resolve().as_posix(), path)) for name, path in foreign.items()
    }
    base = root.resolve().as_posix().rstrip("/") + "/"
    if all(path.startswith(base) for path in absolute.values()):
        return {name: path.removeprefix(base) for name, path in absolute.items()}
    parts = {
        name: [part for part in PurePosixPath(path).parts if part not in ("/", "..")] for name, path in foreign.items()
    }
    dropped = _shared_start(root, list(parts.values()))
    first = next(iter(foreign))
    if dropped is None:
        raise InputError(
            f"{counted(len(foreign), 'image name leads', 'image names lead')} out of the image folder {root}, such as "
            f"{first}, and none exists "
            "below it without leading folders. Pass the folder of the images with --images DIR"
        )
    start = "/".join(parts[first][:dropped])
    progress.note(f"{len(foreign)} image names such as {first} are read below {root} without their prefix {start}/")
    return {name: "/".join(found[dropped:]) for name, found in parts.items()}


def _shared_start(root: Path, parts: Sequence[Sequence[str]]) -> int | None:
    """The number of common leading folders to remove so that most names exist under the root."""
    folders = StoredNames(root)
    shared = len(PurePosixPath(posixpath.commonpath(["/".join(names[:-1]) for names in parts])).parts)
    sample = parts[:_TRIED]
    tails = [["/".join(names[drop:]) for names in sample] for drop in range(shared + 1)]
    found = [sum(folders.find(tail) is not None for tail in tried) for tried in tails]
    return found.index(max(found)) if any(found) else None


def _placed(paths: Mapping[str, str], places: Mapping[str, str] | None) -> dict[str, str]:
    """Where each path is named; the first name of a path counts."""
    return {paths[name]: place for name, place in reversed(list((places or {}).items()))}
