"""A folder of images without questions, searched recursively; enough for stage one."""

from pathlib import Path

from .....errors import InputError
from .....plain_text import counted
from .....progress import Progress, add_count
from .....suggestions import did_you_mean, from_here, respelled
from ...manifest import Manifest, ManifestRow, is_image_name
from ..common import UNASKED_SPLIT, FoundImages, ImportOptions, finished, identify_images, printable
from .image_files import IMAGE_SUFFIXES
from .listing import Listing, describe_others, describe_system, list_images

UNNAMEABLE = "a file name that no manifest can hold (a backslash, a drive letter, or bytes that are not UTF-8)"


def import_folder(src: Path, options: ImportOptions, progress: Progress, *, limit: int | None = None) -> Manifest:
    """One row without a question for every image file under `src`, sorted by path; only the first `limit`.

    Images are recognized by suffix, DICOM also by its first bytes, and so are other images if the suffix is missing or
    numeric. Linked folders are searched too, each folder once. Other files, and hidden and system files and folders,
    are skipped and counted in a note. An image that cannot be read, or a folder that cannot be opened, gets no row and
    a line in `Manifest.unreadable`. `options.images` is not used.

    Raises:
        InputError: `src` is not a folder, or has no image.
    """
    require_folder(src)
    listing = list_images(src)
    _note_left_out(src, listing, progress)
    found = _identify(src, listing.images[:limit], progress)
    rows = [
        ManifestRow(
            question_id=name,
            split=options.split or UNASKED_SPLIT,
            data_use=options.data_use or "private",
            **columns,
        )
        for name, columns in found.columns.items()
    ]
    return finished(rows, src, "folder", (*listing.closed, *found.unreadable), progress)


def require_folder(src: Path) -> None:
    """Raise InputError if `src` is not a folder."""
    if not src.is_dir():
        near = respelled(src, Path.is_dir)
        meant = from_here(src) if near is None else did_you_mean([str(near)])
        reason = "is a file" if src.exists() else f"does not exist{meant}"
        raise InputError(f"{src} is not a folder of images: it {reason}; pass the folder that contains them")


def count_images(src: Path) -> int:
    """The number of image files under `src` that `import_folder` finds."""
    return len(list_images(src).images)


def _note_left_out(src: Path, listing: Listing, progress: Progress) -> None:
    """Note and count skipped files.

    Raises:
        InputError: There is no image.
    """
    others, system = describe_others(listing.others), describe_system(listing.system)
    if not listing.images:
        hidden = f"; hidden and system files and folders (not searched): {system}" if system else ""
        raise InputError(
            f"{src} has no images ({', '.join(sorted(IMAGE_SUFFIXES))}); other files: {others or 'none'}{hidden}"
        )
    if others:
        subject = counted(
            len(listing.others),
            "file is not an image by its name or content and is skipped",
            "files are not images by their name or content and are skipped",
        )
        progress.note(f"{subject}: {others}")
    if system:
        progress.note(f"{len(listing.system)} hidden or system files and folders are skipped: {system}")
    add_count(progress, "other_files_left_out", len(listing.others))
    add_count(progress, "hidden_or_system_left_out", len(listing.system))


def _identify(src: Path, images: list[Path], progress: Progress) -> FoundImages:
    names = [path.relative_to(src).as_posix() for path in images]
    good = [name for name in names if is_image_name(name)]
    bad = [printable(name) for name in names if not is_image_name(name)]
    for name in bad:
        progress.note(f"{name}: {UNNAMEABLE}; rename it")
    found = identify_images(src, good, progress)
    return FoundImages(found.columns, (*(UNNAMEABLE for _ in bad), *found.unreadable))
