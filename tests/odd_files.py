"""All odd files together, and a folder full of them."""

from pathlib import Path

import odd_dicoms
import odd_rasters

ODD_FILES = (*odd_rasters.READ, *odd_dicoms.READ, *odd_rasters.REFUSED, *odd_dicoms.REFUSED)

_UNREADABLE = ("cannot be read", "a link to a file", "the file changed", "1 TiB")


def fill(folder: Path) -> dict[str, str]:
    """Write every odd file under a name that makes it an image; relative name to outcome."""
    outcomes = {}
    for number, odd in enumerate(ODD_FILES):
        name = odd.name if odd.name != "image" else "image.png"
        if name == "DICOMDIR" or odd.what in ("no file", "a folder named .jpg"):
            continue
        path = folder / f"{number:03}" / name
        path.parent.mkdir()
        odd.make(path)
        outcomes[path.relative_to(folder).as_posix()] = odd.outcome
    return outcomes


def is_unreadable(outcome: str) -> bool:
    """Whether not even the bytes can be had, so that there is no hash."""
    return outcome.startswith(_UNREADABLE) or outcome.endswith("not a regular file")
