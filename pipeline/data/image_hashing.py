"""Identities of many image files: what joins them to stores, worked out on every core.

Threads, not processes: reading, SHA-256 and Pillow's decoders all release the interpreter's lock, so two threads
keep two cores busy without starting a second interpreter.
"""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ...errors import InputError
from ...progress import Progress
from ...teacher_cache.images import UnreadableImage, decode_image, image_hash, read_image_bytes
from ...teacher_cache.workers.cores import usable_cores

NAMED_AT_MOST = 20
"""Files that an error names one by one before it only counts them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageIdentity:
    """What is known of one image file without its name."""

    path: Path
    image_hash: str | None
    """`None` where not even the bytes could be read."""
    pixel_hash: str | None = None
    width: int | None = None
    height: int | None = None
    narrow: bool = False
    """The picture uses under an eighth of the range of its pixels."""
    problem: str | None = None
    """Why the file cannot be read or decoded, in one line without its name; `None` for a good one."""


def hash_images(paths: Sequence[Path], progress: Progress, workers: int | None = None) -> list[ImageIdentity]:
    """Hash and decode every file, in the order given, on `workers` threads (default: one per usable core).

    A file that cannot be decoded keeps its `image_hash`, one that cannot be read has none; both say why in `problem`.
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
    """The error for images that are not where a manifest says; `remedy` names the option that moves the root."""
    shown = "\n".join(f"  {path}" for path in missing[:NAMED_AT_MOST])
    return InputError(
        f"{len(missing)} of {total} images are not where the manifest says (root {root}):\n{shown}\n"
        f"If they were moved, {remedy}."
    )


def require_files(paths: Iterable[Path]) -> None:
    """Hold that every path exists.

    Raises:
        InputError: some do not; all of them in one message.
    """
    distinct = list(dict.fromkeys(paths))
    missing = [path for path in distinct if is_absent(path)]
    if missing:
        named = "\n".join(f"  - {path}" for path in missing[:NAMED_AT_MOST])
        rest = len(missing) - NAMED_AT_MOST
        more = f"\n  and {rest} more" if rest > 0 else ""
        raise InputError(f"{len(missing)} of {len(distinct)} image files are missing:\n{named}{more}")


def is_absent(path: Path) -> bool:
    """Whether nothing is there, as opposed to something that cannot be read."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a name that no file can have
        return True
    except OSError:
        return False
    return False
