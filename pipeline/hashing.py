"""Identities of many image files: what joins them to stores, worked out on every core.

Threads, not processes: reading, SHA-256 and Pillow's decoders all release the interpreter's lock, so two threads
keep two cores busy without starting a second interpreter.
"""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..progress import Progress
from ..teacher_cache.images import UnreadableImage, decode_image, image_hash

NAMED_AT_MOST = 20
"""Files that an error names one by one before it only counts them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageIdentity:
    """What is known of one image file without its name."""

    path: Path
    image_hash: str
    pixel_hash: str | None
    width: int | None
    height: int | None
    problem: str | None
    """Why the file cannot be decoded, in one line; `None` for a good one."""


def hash_images(paths: Sequence[Path], progress: Progress, workers: int | None = None) -> list[ImageIdentity]:
    """Hash and decode every file, in the order given, on `workers` threads (default: one per usable core).

    A file that cannot be decoded keeps its `image_hash` and says what is wrong in `problem`.

    Raises:
        InputError: files are missing or cannot be read; the message counts all and names the first ones.
    """
    require_files(paths)
    progress.start("hashing images", len(paths))
    identities = []
    with ThreadPoolExecutor(max_workers=workers or usable_cores()) as pool:
        for identity in pool.map(identify_image, paths):
            identities.append(identity)
            progress.advance()
    return identities


def identify_image(path: Path) -> ImageIdentity:
    """Read, hash and decode one file.

    Raises:
        InputError: the file cannot be read at all.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    digest = image_hash(data)
    try:
        decoded = decode_image(data)
    except UnreadableImage as error:
        return ImageIdentity(
            path=path, image_hash=digest, pixel_hash=None, width=None, height=None, problem=error.reason
        )
    return ImageIdentity(
        path=path,
        image_hash=digest,
        pixel_hash=decoded.pixel_hash,
        width=decoded.width,
        height=decoded.height,
        problem=None,
    )


def misplaced_images(missing: Sequence[Path], total: int, root: Path, remedy: str) -> InputError:
    """The error for images that are not where a manifest says; `remedy` names the option that moves the root."""
    shown = "\n".join(f"  {path}" for path in missing[:NAMED_AT_MOST])
    return InputError(
        f"{len(missing)} of {total} images are not where the manifest says (root {root}):\n{shown}\n"
        f"If they were moved, {remedy}."
    )


def require_files(paths: Iterable[Path]) -> None:
    """Hold that every path is a file.

    Raises:
        InputError: some are not; all of them in one message.
    """
    paths = list(paths)
    missing = [path for path in dict.fromkeys(paths) if not path.is_file()]
    if missing:
        named = "\n".join(f"  - {path}" for path in missing[:NAMED_AT_MOST])
        rest = len(missing) - NAMED_AT_MOST
        more = f"\n  and {rest} more" if rest > 0 else ""
        total = len(set(paths))
        raise InputError(f"{len(missing)} of {total} image files are missing:\n{named}{more}")


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
