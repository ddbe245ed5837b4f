"""Identities (hashes) of many image files, computed on all cores.

Threads rather than processes: reading, SHA-256 and Pillow's decoders all release the GIL, so two threads keep two
cores busy without a second interpreter.
"""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ...errors import InputError
from ...path_checks import is_absent
from ...progress import Progress
from ...teacher_cache.images import UnreadableImage, decode_image, image_hash, read_image_bytes
from ...teacher_cache.workers.cores import usable_cores

NAMED_AT_MOST = 20
"""Files that an error message lists by name; the rest are only counted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageIdentity:
    """The identity of one image file, independent of its name."""

    path: Path
    image_hash: str | None
    """`None` if the file cannot be read."""
    pixel_hash: str | None = None
    width: int | None = None
    height: int | None = None
    narrow: bool = False
    """The image uses less than an eighth of the range of its pixel type."""
    problem: str | None = None
    """Why the file cannot be read or decoded, in one line without its name; `None` if it can."""


def hash_images(paths: Sequence[Path], progress: Progress, workers: int | None = None) -> list[ImageIdentity]:
    """Hash and decode files, in the given order, on `workers` threads (default: one per usable core).

    A file that cannot be decoded still has an `image_hash`, one that cannot be read has none; `problem` has the reason.
    """
    progress.start("hashing images", len(paths))
    identities = []
    with ThreadPoolExecutor(max_workers=workers or usable_cores()) as pool:
        for identity in pool.map(identify_image, paths):
            identities.append(identity)
            progress.advance()
    return identities


def identify_image(path: Path) -> ImageIdentity:
    """Read, hash and decode one file."""
    digest = None
    try:
        data = read_image_bytes(path)
        digest = image_hash(data)
        decoded = decode_image(data)
    except UnreadableImage as error:
        return ImageIdentity(path=path, image_hash=digest, problem=error.reason)
    return ImageIdentity(
        path=path,
        image_hash=digest,
        pixel_hash=decoded.pixel_hash,
        width=decoded.width,
        height=decoded.height,
        narrow=decoded.narrow,
    )


def misplaced_images(missing: Sequence[Path], total: int, root: Path, remedy: str) -> InputError:
    """The error for missing images; `remedy` says how to change the root."""
    shown = "\n".join(f"  {path}" for path in missing[:NAMED_AT_MOST])
    return InputError(
        f"{len(missing)} of {total} images are missing under the manifest's root {root}:\n{shown}\n"
        f"If the files were moved, {remedy}."
    )


def require_files(paths: Iterable[Path]) -> None:
    """Check that every path exists.

    Raises:
        InputError: Paths are missing; one message covers all.
    """
    distinct = list(dict.fromkeys(paths))
    missing = [path for path in distinct if is_absent(path)]
    if missing:
        named = "\n".join(f"  - {path}" for path in missing[:NAMED_AT_MOST])
        rest = len(missing) - NAMED_AT_MOST
        more = f"\n  and {rest} more" if rest > 0 else ""
        raise InputError(
            f"{len(missing)} of {len(distinct)} image files are missing:\n{named}{more}\nIf they are in another "
            "folder, set the folder that the manifest's paths are relative to (--root, or root in a specification)"
        )
