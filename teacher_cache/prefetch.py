"""Reading and decoding images ahead of the teacher, in threads, in order, a bounded number at a time."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float32
from torch import Tensor

from .geometry import Geometry, fill_colour, to_pixels, to_square
from .images import UnreadableImage, decode_image, image_hash, read_image_bytes
from .teachers.registry import TeacherSpec


@dataclass(frozen=True, slots=True)
class ImageSource:
    """An image file and the SHA-256 that its bytes had when it was planned."""

    path: Path
    image_hash: str


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedImage:
    """Normalised pixels of one image, ready for the teacher."""

    image_hash: str
    pixel_hash: str
    size: tuple[int, int]
    """Width and height of the upright image, pixels."""
    pixels: Float32[Tensor, "3 side side"]


@dataclass(frozen=True, slots=True)
class FailedImage:
    """An image that gets no row, and why: one line without any path."""

    image_hash: str
    reason: str


def prepare_image(source: ImageSource, spec: TeacherSpec, geometry: Geometry) -> PreparedImage | FailedImage:
    """Read, check, decode, register and normalise one image; whatever is wrong with it becomes its reason."""
    try:
        data = read_image_bytes(source.path)
        if image_hash(data) != source.image_hash:
            return FailedImage(source.image_hash, "the file has changed since it was hashed")
        decoded = decode_image(data)
    except UnreadableImage as error:
        return FailedImage(source.image_hash, error.reason)
    square = to_square(decoded.rgb, spec.image_size, geometry, fill_colour(spec.mean))
    return PreparedImage(
        image_hash=source.image_hash,
        pixel_hash=decoded.pixel_hash,
        size=(decoded.width, decoded.height),
        pixels=to_pixels(square, spec.mean, spec.std),
    )


def prefetched(
    sources: Iterable[ImageSource],
    prepare: Callable[[ImageSource], PreparedImage | FailedImage],
    *,
    workers: int,
    ahead: int,
) -> Generator[PreparedImage | FailedImage, None, None]:
    """Yield `prepare(source)` in order, while `workers` threads are at most `ahead` images further on.

    Closing the iterator cancels what has not begun.
    """
    waiting: deque[Future[PreparedImage | FailedImage]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="medalign-decode") as pool:
        try:
            for source in sources:
                waiting.append(pool.submit(prepare, source))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
