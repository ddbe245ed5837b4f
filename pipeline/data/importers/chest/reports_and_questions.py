"""Shared by the two chest X-ray report data sets: finding files, and joining reports and questions."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from .....choices import DataUse
from .....errors import InputError
from .....plain_text import counted
from .....progress import Progress
from ...manifest import Manifest
from ..common import ImportOptions, finished, read_images, shortened, unasked_rows
from ..image_folders.image_files import is_system_name
from .cares import yes_no_rows
from .studies import Study, report_rows


def sources(src: Path, names: Iterable[str], what: str) -> list[Path]:
    """SRC itself if it is a file, else the first file in the folder for each pattern.

    Hidden and AppleDouble files (`._annotation.json`) are ignored.

    Raises:
        InputError: There is none.
    """
    if src.is_file():
        return [src]
    names = list(names)
    found = [next((path for path in sorted(src.glob(name)) if not is_system_name(path.name)), None) for name in names]
    files = [path for path in found if path is not None and path.is_file()]
    if not files:
        raise InputError(f"{src} has no {what}: looked for {', '.join(names)}")
    return files


def image_folder(folder: Path, names: Iterable[str], options: ImportOptions) -> Path:
    """The folder that image names are relative to: `options.images`, else the first folder of the layout that exists.

    Raises:
        InputError: None exists.
    """
    if options.images is not None:
        return options.images
    names = list(names)
    for name in names:
        if (folder / name).is_dir():
            return folder / name
    raise InputError(f"{folder} has no image folder ({' or '.join(names)}); pass it with --images DIR")


def chest_manifest(
    name: str,
    files: Sequence[Path],
    root: Path,
    studies: Sequence[Study],
    asked: Sequence[dict[str, Any]],
    data_use: DataUse,
    options: ImportOptions,
    progress: Progress,
    unasked: Sequence[str] = (),
) -> Manifest:
    """Reports and CARES's questions about the same images; a question takes the split of its image's study, if any.

    Images in `unasked` become rows without a question.

    Raises:
        InputError: Images are missing, or studies in different splits share one.
    """
    named = [image for study in studies for image in study.images] + [str(record["image"]) for record in asked]
    named += unasked
    found = read_images(root, named, progress)
    splits = _splits(studies)
    rows = [
        *report_rows(name, studies, found, data_use, options, progress),
        *yes_no_rows(f"cares-{name}", asked, found, splits, data_use, options, progress),
        *unasked_rows(unasked, found, options.data_use or data_use, progress),
    ]
    source = f"{name} {' '.join(path.name for path in files)}"
    return finished(rows, root, source, found.unreadable, progress)


def _splits(studies: Sequence[Study]) -> dict[str, str]:
    """The split of every image.

    Raises:
        InputError: Studies in different splits share an image.
    """
    splits: dict[str, str] = {}
    torn = []
    for study in studies:
        for image in study.images:
            if splits.setdefault(image, study.split) != study.split:
                torn.append(f"{image} in {splits[image]} and {study.split}")
    if torn:
        raise InputError(f"{counted(len(torn), 'image is', 'images are')} in two splits; {shortened(torn)}")
    return splits
