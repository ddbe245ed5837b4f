"""A folder of images alone, searched recursively: what stage one needs when there are no questions yet."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ...errors import InputError
from ...progress import Progress
from ...teacher_cache.images import HEAD_BYTES, looks_like_dicom, read_head
from ..manifest import Manifest, ManifestRow, is_image_name
from .common import (
    UNASKED_SPLIT,
    FoundImages,
    ImportOptions,
    finished,
    identify_images,
    printable,
    shortened,
)
from .image_files import IMAGE_SUFFIXES, search_folder

UNNAMEABLE = "a file name that no manifest can hold (a backslash, a drive letter, or bytes that are not UTF-8)"

_KINDS_SHOWN = 10


def import_folder(src: Path, options: ImportOptions, progress: Progress, *, limit: int | None = None) -> Manifest:
    """Make one row without a question for every image file under `src`, sorted by path; of the first `limit` alone.

    Images are known by their suffix, DICOM also by how it begins where a file has no suffix or only digits. Linked
    folders are searched too, each folder once. Hidden and system files and folders (AppleDouble `._a.png`, `.Trash-0`,
    `__MACOSX`, `@eaDir`) and other files are left out and counted in a note; an image that cannot even be read, or a
    folder that cannot be opened, gets no row and a line in `Manifest.unreadable`.
    `options.images` is not used.

    Raises:
        InputError: not a folder, or no image in it.
    """
    if not src.is_dir():
        raise InputError(f"{src} is not a folder of images")
    search = search_folder(src)
    if search.hidden:
        names = list(map(printable, search.hidden))
        progress.note(f"{len(names)} hidden or system files and folders are left out; {shortened(names)}")
    images = [path for path in search.files if _is_image(path)]
    _tell_others(src, search.files, images, progress)
    found = _identify(src, images[:limit], progress)
    rows = [
        ManifestRow(
            question_id=name,
            split=options.split or UNASKED_SPLIT,
            data_use=options.data_use or "private",
            **columns,
        )
        for name, columns in found.columns.items()
    ]
    return finished(rows, src, "folder", (*search.closed, *found.unreadable), progress)


def count_images(src: Path) -> int:
    """Image files under `src`, as `import_folder` finds them."""
    return sum(map(_is_image, search_folder(src).files))


def _is_image(path: Path) -> bool:
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return True
    unnamed = not suffix or suffix[1:].isdigit()  # as archives name DICOM files: IM000001, 1.2.840.113619.2.5
    return unnamed and path.name != "DICOMDIR" and looks_like_dicom(read_head(path, HEAD_BYTES))


def _tell_others(src: Path, files: Sequence[Path], images: list[Path], progress: Progress) -> None:
    """Note what is left out, by suffix.

    Raises:
        InputError: nothing is left in.
    """
    others = Counter(path.suffix.lower() or path.name for path in sorted(set(files) - set(images)))
    kinds = [f"{count} {printable(suffix)}" for suffix, count in others.most_common()]
    more = f" and {len(kinds) - _KINDS_SHOWN} other kinds" if len(kinds) > _KINDS_SHOWN else ""
    left_out = ", ".join(kinds[:_KINDS_SHOWN]) + more
    if not images:
        raise InputError(
            f"{src} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))}); other files: {left_out or 'none'}"
        )
    if left_out:
        progress.note(f"{others.total()} files are no images by their suffix and are left out: {left_out}")


def _identify(src: Path, images: list[Path], progress: Progress) -> FoundImages:
    names = [path.relative_to(src).as_posix() for path in images]
    good = [name for name in names if is_image_name(name)]
    bad = [printable(name) for name in names if not is_image_name(name)]
    for name in bad:
        progress.note(f"{name}: {UNNAMEABLE}; rename it")
    found = identify_images(src, good, progress)
    return FoundImages(found.columns, (*(UNNAMEABLE for _ in bad), *found.unreadable))
