"""Reading and decoding images ahead of the teacher, in threads, in order, a bounded number of batches at a time."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from jaxtyping import Float32
from torch import Tensor

from .geometry import Geometry, fill_colour, to_pixels, to_square
from .images import UnreadableImage, read_expected_image
from .teachers.registry import TeacherSpec


@dataclass(frozen=True, slots=True)
class ImageSource:
    """An image file and the SHA-256 that its bytes had when it was planned."""

    path: Path
    image_hash: str
    pixel_hash: str | None = None
    """By which a file that was re-saved without loss is known too; `None`: its bytes alone count."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedImage:
    """Normalised pixels of one image, ready for the teacher."""

    image_hash: str
    pixel_hash: str
    size: tuple[int, int]
    """Width and height of the upright image, pixels."""
    pixels: Float32[Tensor, "3 side side"]
    narrow: bool
    """The picture uses under an eighth of the range of its pixels."""


@dataclass(frozen=True, slots=True)
class FailedImage:
    """An image that gets no row, and why: one line without any path."""

    image_hash: str
    reason: str


def prepare_image(source: ImageSource, spec: TeacherSpec, geometry: Geometry) -> PreparedImage | FailedImage:
    """Read, check, decode, register and normalise one image; whatever is wrong with it becomes its reason."""
    try:
        decoded = read_expected_image(source.path, source.image_hash, source.pixel_hash)
    except UnreadableImage as error:
        return FailedImage(source.image_hash, error.reason)
    square = to_square(decoded.shown, spec.image_size, geometry, fill_colour(spec.mean))
    return PreparedImage(
        image_hash=source.image_hash,
        pixel_hash=decoded.pixel_hash,
        size=(decoded.width, decoded.height),
        pixels=to_pixels(square, spec.mean, spec.std),
        narrow=decoded.narrow,
    )


def prefetched(
    batches: Iterable[Sequence[ImageSource]],
    prepare: Callable[[ImageSource], PreparedImage | FailedImage],
    *,
    workers: int,
    ahead: int,
) -> Generator[list[PreparedImage | FailedImage], None, None]:
    """Yield each batch prepared, in order, while `workers` threads are at most `ahead` batches further on.

    With 0 they rest while the caller is busy with a batch. Closing the iterator cancels what has not begun.
    """
    waiting: deque[list[Future[PreparedImage | FailedImage]]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="medalign-decode") as pool:
        try:
            for batch in batches:
                waiting.append([pool.submit(prepare, source) for source in batch])
                if len(waiting) > ahead:
                    yield _results(waiting)
            while waiting:
                yield _results(waiting)
        finally:
            for future in chain.from_iterable(waiting):
                future.cancel()


def _results(waiting: deque[list[Future[PreparedImage | FailedImage]]]) -> list[PreparedImage | FailedImage]:
    """Of the first batch, which goes when all are there."""
    results = [future.result() for future in waiting[0]]
    waiting.popleft()
    return results
