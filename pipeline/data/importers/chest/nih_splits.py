"""The official split of ChestX-ray14: lists of image names in the release."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from .....errors import InputError
from .....plain_text import counted
from .....progress import Progress
from ..common import shortened
from ..records import read_text

LISTS = {"train_val": "train_val_list.txt", "test": "test_list.txt"}


def official_splits(src: Path, stems: Sequence[str], progress: Progress) -> dict[str, str]:
    """`train_val` or `test` for every image; empty if the lists do not exist.

    Raises:
        InputError: Only one list exists, an image is in both, or a labeled image is in neither.
    """
    files = {part: src / name for part, name in LISTS.items()}
    present = [path for path in files.values() if path.is_file()]
    if not present:
        progress.note(f"{src} has no {' and '.join(LISTS.values())}: patients are split at random")
        return {}
    if len(present) == 1:
        absent = next(path for path in files.values() if path not in present)
        raise InputError(f"{present[0]} exists without {absent.name}: download it, or remove both for a random split")
    listed = {part: _stems(path) for part, path in files.items()}
    both = sorted(listed["train_val"] & listed["test"])
    if both:
        raise InputError(
            f"{counted(len(both), 'image is', 'images are')} in {' and in '.join(LISTS.values())}; {shortened(both)}"
        )
    splits = {stem: part for part, names in listed.items() for stem in names}
    neither = [stem for stem in stems if stem not in splits]
    if neither:
        raise InputError(
            f"{len(neither)} of {len(stems)} labeled images are in neither of {' and '.join(LISTS.values())}; "
            f"{shortened(neither)}. Remove both lists for a random split"
        )
    return splits


def _stems(path: Path) -> set[str]:
    return {PurePosixPath(line.strip()).stem for line in read_text(path).splitlines() if line.strip()}
