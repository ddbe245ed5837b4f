"""What the two chest X-ray report sets share: where their files are, and one manifest of reports and questions."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from .....errors import InputError
from .....plain_text import counted
from .....progress import Progress
from ...manifest import DataUse, Manifest
from ..common import ImportOptions, finished, read_images, shortened, unasked_rows
from ..image_folders.image_files import is_system_name
from .cares import yes_no_rows
from .studies import Study, report_rows


def sources(src: Path, names: Iterable[str], what: str) -> list[Path]:
    """SRC itself where it is a file, else those of a folder's files that are there, by patterns, the first of each.

    Hidden and AppleDouble files (`._annotation.json`) are not looked at.

    Raises:
        InputError: there is none.
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
    """Where image names start from: what was said, else the first of a layout's places that is there.

    Raises:
        InputError: none is.
    """
    if options.images is not None:
        return options.images
    names = list(names)
    for name in names:
        if (folder / name).is_dir():
            return folder / name
    raise InputError(f"{folder} has no image folder ({' or '.join(names)}); --images DIR says where the images are")


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
    """Reports and CARES's questions about the same images; a question takes its image's split where a study has it.

    `unasked` are further images, which become rows without a question.

    Raises:
        InputError: images are missing, or studies in different splits share one.
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
        InputError: studies in different splits share an image.
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
