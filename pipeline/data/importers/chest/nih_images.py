"""Find the image files of the NIH's label table: releases differ in folders, and masks may have the same names."""

from pathlib import Path, PurePosixPath

from .....errors import InputError
from .....plain_text import counted
from .....progress import Progress
from ..common import shortened
from ..image_folders.image_files import listed_images


def images_by_stem(root: Path, stems: set[str], progress: Progress) -> dict[str, str]:
    """Image files under the root by their stem: releases differ in folder (images_001/images) and suffix.

    If labeled images are in folders whose names begin with `images`, only those folders count: masks may have the same
    names.

    Raises:
        InputError: A labeled image still has several files.
    """
    names = listed_images(root)
    inside = [name for name in names if _in_images(name)]
    if any(PurePosixPath(name).stem in stems for name in inside):
        others = [name for name in names if PurePosixPath(name).stem in stems and not _in_images(name)]
        names = inside
        if others:
            subject = counted(
                len(others),
                "file outside of the images folders has the name of a labeled image and is",
                "files outside of the images folders have the name of a labeled image and are",
            )
            progress.note(f"{subject} skipped; {shortened(others)}")
    by_stem: dict[str, list[str]] = {}
    for name in names:
        by_stem.setdefault(PurePosixPath(name).stem, []).append(name)
    unclear = [" and ".join(found) for stem, found in by_stem.items() if stem in stems and len(found) > 1]
    if unclear:
        subject = counted(len(unclear), "labeled image has", "labeled images have")
        raise InputError(
            f"{subject} several files under {root}; {shortened(unclear)}. "
            "Pass the folder of the images with --images DIR"
        )
    return {stem: found[0] for stem, found in by_stem.items()}


def _in_images(name: str) -> bool:
    return any(part.casefold().startswith("images") for part in PurePosixPath(name).parts[:-1])
