"""The "did you mean" of error messages: the known name closest to an unknown one, or the folder near a wrong one."""

import os
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from itertools import islice
from pathlib import Path

_CUTOFF = 0.5
"""Lowest difflib ratio at which a name is suggested."""
_MOST_FOLDERS = 3
_MOST_ENTRIES = 1000
"""Entries of a folder that are looked at."""
_LEVELS = 2
"""Folders above a wrong path that are looked at."""


def nearest(name: str, known: Iterable[str], most: int = 1, cutoff: float = _CUTOFF) -> list[str]:
    """The known names most similar to `name`, the closest first; at most `most` of them."""
    return get_close_matches(str(name), list(known), n=most, cutoff=cutoff)


def did_you_mean(names: Sequence[str], quote: str = "'") -> str:
    """` (did you mean 'beta'?)` with suggested names, to append to the unknown name.

    >>> did_you_mean(["store verify", "assets verify"], quote="`")
    ' (did you mean `store verify` or `assets verify`?)'
    >>> did_you_mean([])
    ''
    """
    if not names:
        return ""
    *first, last = [f"{quote}{name}{quote}" for name in names]
    return f" (did you mean {', '.join(first)}{' or ' if first else ''}{last}?)"


def suggestion(name: str, known: Iterable[str]) -> str:
    """The closest known name as ` (did you mean 'beta'?)`; empty if none is close.

    >>> suggestion("betta", ("alpha", "beta"))
    " (did you mean 'beta'?)"
    """
    return did_you_mean(nearest(name, known))


def respelled(missing: Path, is_right: Callable[[Path], bool] = Path.exists) -> Path | None:
    """The right path whose spelling is closest to that of one that does not exist; `None` if none is close.

    Only the first folder or file of the path that does not exist is spelled anew; suffixes may differ.
    """
    wrong = missing
    while wrong.parent != wrong and not _holds(Path.exists, wrong.parent):
        wrong = wrong.parent
    rest, beside = missing.relative_to(wrong), _names_in(wrong.parent)
    stems = nearest(wrong.stem, dict.fromkeys(Path(name).stem for name in beside), most=_MOST_ENTRIES)
    paths = (wrong.parent / name / rest for stem in stems for name in beside if Path(name).stem == stem)
    return next((path for path in paths if _holds(is_right, path)), None)


def spelling(missing: Path, is_right: Callable[[Path], bool] = Path.exists) -> str:
    """What to append to "PATH does not exist": the path that was meant, or what to check."""
    near = respelled(missing, is_right)
    return f"; check its spelling{from_here(missing)}" if near is None else did_you_mean([str(near)])


def from_here(path: Path) -> str:
    """For a relative path, the current folder that it begins at, to append to an error about it."""
    try:
        return "" if path.is_absolute() else f" (the current folder is {Path.cwd()})"
    except OSError:
        return " (the current folder does not exist any more)"


def to_pass(wrong: Path, is_right: Callable[[Path], bool], otherwise: str = "") -> str:
    """`pass runs/store.zarr` if a right folder is in, around or beside a `wrong` path, else `otherwise`.

    At most three folders are named: those in `wrong`, else the nearest around it, else those beside it.
    """
    folders = _right_folders(wrong, is_right)
    if not folders:
        return otherwise
    *first, last = map(str, folders[:_MOST_FOLDERS])
    more = f", or another one of {len(folders):,}" if len(folders) > _MOST_FOLDERS else ""
    return f"pass {', '.join(first)}{' or ' if first else ''}{last}{more}"


def _right_folders(wrong: Path, is_right: Callable[[Path], bool]) -> list[Path]:
    above = list(wrong.parents)[:_LEVELS]
    for folders in (_inside(wrong), *([parent] for parent in above), *map(_inside, above)):
        if right := [folder for folder in folders if folder != wrong and _holds(is_right, folder)]:
            return right
    return []


def _names_in(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in islice(entries, _MOST_ENTRIES))
    except OSError:
        return []


def _inside(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return sorted(folder / entry.name for entry in islice(entries, _MOST_ENTRIES) if entry.is_dir())
    except OSError:
        return []


def _holds(is_right: Callable[[Path], bool], folder: Path) -> bool:
    try:
        return is_right(folder)
    except OSError:
        return False
