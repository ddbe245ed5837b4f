"""The message about images that a data set names and that do not exist: their rows, and what may have been meant."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

from ....path_checks import is_absent
from ....suggestions import nearest, respelled
from ..image_hashing import NAMED_AT_MOST

_LONGEST_NAME, _LONGEST_PATH = 255, 4096
"""Longest file name and path, in bytes, on common file systems."""
_SHOWN = 200
"""Longest name of a missing image in a message, in characters."""
_ADVICE_ON_OVERLONG = (
    "These names are longer than any file name can be; "
    "if they are base64 images, write them to files and use the file names"
)
_SEARCHED = 20_000
"""Number of files to search for a missing image."""


def is_overlong(path: str) -> bool:
    """Whether the name is too long for file systems."""
    sizes = [len(part.encode(errors="surrogatepass")) for part in path.split("/")]
    return max(sizes) > _LONGEST_NAME or sum(sizes) + len(sizes) > _LONGEST_PATH


def overlong_message(root: Path, overlong: Sequence[str], total: int, places: Mapping[str, str]) -> str:
    """The message about names that no file can have; arguments as in `missing_message`."""
    return _message(root, overlong, total, places, [_ADVICE_ON_OVERLONG])


def missing_message(root: Path, missing: Sequence[str], total: int, places: Mapping[str, str]) -> str:
    """The message about missing images.

    Args:
        root: The image folder.
        missing: Their paths below it.
        total: Number of names.
        places: Where a path is named, such as `row 7 of lab.csv`, if it is known.
    """
    return _message(root, missing, total, places, _advice(root, missing, total))


def _message(root: Path, missing: Sequence[str], total: int, places: Mapping[str, str], advice: Sequence[str]) -> str:
    named = "".join(
        f"\n  - {root / _shown(path)}{f' ({places[path]})' if path in places else ''}"
        for path in missing[:NAMED_AT_MOST]
    )
    rest = len(missing) - NAMED_AT_MOST
    more = f"\n  and {rest} more" if rest > 0 else ""
    lines = "".join(f"\n{line}" for line in advice)
    return f"{len(missing)} of {total} image files are missing:{named}{more}{lines}"


def _advice(root: Path, missing: Sequence[str], total: int) -> list[str]:
    """Which missing images are there in another spelling; else where the first one may be, or what is like them."""
    files = [root / path for path in missing[:NAMED_AT_MOST]]
    listed = {folder: _entries(folder) for folder in {file.parent for file in files}}
    lines = [line for file in files if (line := _other_spelling(file, listed[file.parent])) is not None]
    if lines:
        return lines
    if (found := _elsewhere(root, missing[0])) is not None:
        few = 2 * len(missing) <= total
        return [f"{missing[0]} is in {found}: {f'move it to {root}' if few else 'pass this folder with --images'}"]
    near = [(file, _closest(file, listed[file.parent])) for file in files]
    lines = [f"{file}: did you mean {close}?" for file, close in near if close is not None]
    if lines:
        return lines
    return ["If they are elsewhere, pass their folder with --images DIR"] if len(missing) == total else []


def _other_spelling(file: Path, entries: Sequence[Path]) -> str | None:
    case = [entry.name for entry in entries if entry.name.casefold() == file.name.casefold()]
    alike = case or [entry.name for entry in entries if entry.stem == file.stem]
    if not alike:
        return None
    how = " (only the case differs)" if case else ""
    return f"{file.parent} has {alike[0]}, not {file.name}{how}: rename the file or change the table"


def _closest(file: Path, entries: Sequence[Path]) -> Path | None:
    """The file that may have been meant: with the same numbers in its name, because another number is another image."""
    if not file.parent.is_dir():
        return respelled(file)
    names = {entry.stem: entry for entry in entries if entry.suffix.casefold() == file.suffix.casefold()}
    alike = [stem for stem in names if _numbers(stem) == _numbers(file.stem)]
    close = nearest(file.stem, alike)
    return names[close[0]] if close else None


def _numbers(name: str) -> list[str]:
    return [digits.lstrip("0") for digits in re.findall(r"\d+", name)]


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
