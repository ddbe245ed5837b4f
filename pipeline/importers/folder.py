"""A folder of images alone, searched recursively: what stage one needs when there are no questions yet."""

from collections import Counter
from pathlib import Path

from ...errors import InputError
from ...progress import Progress
from ..manifest import Manifest, ManifestRow
from .common import IMAGE_SUFFIXES, UNASKED_SPLIT, ImportOptions, read_images, tell_result


def import_folder(src: Path, options: ImportOptions, progress: Progress) -> Manifest:
    """Make one row without a question for every image file under `src`, sorted by path.

    Files with other suffixes are left out and counted in a note. `options.images` is not used.

    Raises:
        InputError: not a folder, or no image in it.
    """
    if not src.is_dir():
        raise InputError(f"{src} is not a folder of images")
    files = sorted(path for path in src.rglob("*") if path.is_file())
    images = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    suffixes = Counter(path.suffix.lower() or path.name for path in files)
    others = Counter({suffix: count for suffix, count in suffixes.items() if suffix not in IMAGE_SUFFIXES})
    left_out = ", ".join(f"{count} {suffix}" for suffix, count in sorted(others.items()))
    if not images:
        raise InputError(
            f"{src} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))}); other files: {left_out or 'none'}"
        )
    if left_out:
        progress.note(f"{others.total()} files are no images by their suffix and are left out: {left_out}")
    names = [path.relative_to(src).as_posix() for path in images]
    columns = read_images(src, names, progress)
    rows = [
        ManifestRow(
            question_id=name,
            split=options.split or UNASKED_SPLIT,
            data_use=options.data_use or "private",
            **columns[name],
        )
        for name in names
    ]
    manifest = Manifest.from_rows(rows, src, "folder")
    tell_result(manifest, progress)
    return manifest
