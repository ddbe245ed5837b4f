"""Find the images that a data set names: one rule for separators, absolute paths and Unicode forms.

Tables are written on other machines: with backslashes, with the absolute paths of their author, with `é` as one
character or as two (NFC, NFD). Every name is found under the image folder or rejected before a file is read.
"""

import os
import posixpath
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path, PurePosixPath

from ....errors import InputError
from ....path_checks import is_absent
from ....plain_text import counted
from ....progress import Progress
from ....teacher_cache.images.unicode_forms import StoredNames
from ..image_hashing import NAMED_AT_MOST

_DRIVE = re.compile(r"^[A-Za-z]:")
_LONGEST_NAME, _LONGEST_PATH = 255, 4096
"""Longest file name and path, in bytes, on common file systems."""
_SHOWN = 200
"""Longest name of a missing image in a message, in characters."""
_ADVICE_ON_OVERLONG = (
    "These names are longer than any file name can be; "
    "if they are base64 images, write them to files and use the file names"
)
_TRIED = 100
"""Number of absolute names from which their common prefix is determined."""
_SEARCHED = 20_000
"""Number of files to search for a missing image."""


def locate_images(root: Path, names: Iterable[str], progress: Progress) -> dict[str, str]:
    """The path under `root`, as spelled on disk, of every distinct name.

    Backslashes separate folders. A name that leads out of `root` (absolute, with a drive, or by `..`) is looked up
    below `root` without the folders that all such names share. If the exact name does not exist, Unicode forms are
    matched.

    Raises:
        InputError: Names lead elsewhere, or images are missing; one message lists all.
    """
    paths = {name: _posix(name) for name in names}
    overlong = [path for path in paths.values() if _is_overlong(path)]
    if overlong:
        raise InputError(_missing_message(root, overlong, len(paths), _ADVICE_ON_OVERLONG))
    paths |= _brought_inside(root, {name: path for name, path in paths.items() if _leads_out(path)}, progress)
    folders = StoredNames(root)
    located = {name: folders.find(path) for name, path in paths.items()}
    missing = [paths[name] for name, path in located.items() if path is None]
    if missing:
        raise InputError(_missing_message(root, missing, len(paths)))
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


def _is_overlong(path: str) -> bool:
    """Whether the name is too long for file systems."""
    sizes = [len(part.encode(errors="surrogatepass")) for part in path.split("/")]
    return max(sizes) > _LONGEST_NAME or sum(sizes) + len(sizes) > _LONGEST_PATH


def _missing_message(root: Path, missing: Sequence[str], total: int, advice_on_all: str | None = None) -> str:
    named = "\n".join(f"  - {root / _shown(path)}" for path in missing[:NAMED_AT_MOST])
    rest = len(missing) - NAMED_AT_MOST
    more = f"\n  and {rest} more" if rest > 0 else ""
    lines = [advice_on_all] if advice_on_all else _advice(root, missing, total)
    advice = "".join(f"\n{line}" for line in lines)
    return f"{len(missing)} of {total} image files are missing:\n{named}{more}{advice}"


def _advice(root: Path, missing: Sequence[str], total: int) -> list[str]:
    """Which missing images are in the same folder with another spelling; else where the first one may be."""
    places = [root / path for path in missing[:NAMED_AT_MOST]]
    listed = {folder: _entries(folder) for folder in {place.parent for place in places}}
    lines = [line for place in places if (line := _other_spelling(place, listed[place.parent])) is not None]
    if lines:
        return lines
    if (found := _elsewhere(root, missing[0])) is not None:
        few = 2 * len(missing) <= total
        return [f"{missing[0]} is in {found}: {f'move it to {root}' if few else 'pass this folder with --images'}"]
    return ["If they are elsewhere, pass their folder with --images DIR"] if len(missing) == total else []


def _other_spelling(place: Path, entries: Sequence[Path]) -> str | None:
    case = [entry.name for entry in entries if entry.name.casefold() == place.name.casefold()]
    alike = case or [entry.name for entry in entries if entry.stem == place.stem]
    if not alike:
        return None
    how = " (only the case differs)" if case else ""
    return f"{place.parent} has {alike[0]}, not {place.name}{how}: rename the file or change the table"


def _elsewhere(root: Path, path: str) -> Path | None:
    """The folder below or above `root` that has this image."""
    above = next((folder for folder in (root.parent, root.parent.parent) if not is_absent(folder / path)), None)
    if above is not None:
        return above
    for found in islice(_walk(root), _SEARCHED):
        if found.as_posix().endswith(f"/{path}"):
            return Path(found.as_posix().removesuffix(f"/{path}"))
    return None


def _shown(path: str) -> str:
    return path if len(path) <= _SHOWN else f"{path[: _SHOWN // 4]}... ({len(path)} characters)"


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _walk(root: Path) -> Iterator[Path]:
    for folder, subfolders, names in os.walk(root):
        subfolders.sort()
        yield from (Path(folder, name) for name in names)
