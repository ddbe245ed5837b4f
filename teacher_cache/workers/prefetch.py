"""Reading and decoding images ahead of the teacher, in order, a bounded number of batches at a time.

Importing this loads no torch: processes that decode need none.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ..geometry.square import Geometry, JpegScale, fill_colour, jpeg_reduction, reduced_to_square, to_square
from ..images import UnreadableImage, read_expected_image
from ..teachers.registry import TeacherSpec


@dataclass(frozen=True, slots=True)
class ImageSource:
    """An image file and the SHA-256 that its bytes had when it was planned."""

    path: Path
    image_hash: str
    pixel_hash: str | None = None
    """By which a file that was re-saved without loss is known too; `None`: its bytes alone count."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedImage:
    """One image on the teacher's square; `to_pixel_batch` normalizes a batch of them on the teacher's device."""

    image_hash: str
    pixel_hash: str
    size: tuple[int, int]
    """Width and height of the upright image, pixels."""
    square: NDArray[np.uint8]
    """[side, side, 3], RGB."""
    narrow: bool
    """The picture uses under an eighth of the range of its pixels."""


@dataclass(frozen=True, slots=True)
class FailedImage:
    """An image that gets no row, and why: one line without any path."""

    image_hash: str
    reason: str


Prepare = Callable[[ImageSource], PreparedImage | FailedImage]


def prepare_image(
    source: ImageSource, spec: TeacherSpec, geometry: Geometry, jpeg_scale: JpegScale = "full"
) -> PreparedImage | FailedImage:
    """Read, check, decode and register one image; whatever is wrong with it becomes its reason."""
    reduction = None
    if jpeg_scale == "reduced":
        reduction = partial(jpeg_reduction, size=spec.image_size, geometry=geometry)
    try:
        decoded = read_expected_image(source.path, source.image_hash, source.pixel_hash, reduction)
    except UnreadableImage as error:
        return FailedImage(source.image_hash, error.reason)
    fill, full = fill_colour(spec.mean), decoded.full_size
    if full is None:
        square = to_square(decoded.shown, spec.image_size, geometry, fill)
    else:
        factor = jpeg_reduction(*full, spec.image_size, geometry)
        square = reduced_to_square(decoded.shown, factor, full, spec.image_size, geometry, fill)
    return PreparedImage(
        image_hash=source.image_hash,
        pixel_hash=decoded.pixel_hash,
        size=(decoded.width, decoded.height),
        square=np.asarray(square),
        narrow=decoded.narrow,
    )


@runtime_checkable
class Decoders(Protocol):
    """What prepares images beside the caller: threads, or the processes of `decode_pool`."""

    def submit(self, source: ImageSource) -> Future[PreparedImage | FailedImage]:
        """Have an image prepared; images are begun in the order of these calls."""

    def close(self) -> None:
        """Drop what has not begun and end; nothing is submitted afterwards."""


class DecodeThreads:
    """Threads of this process."""

    def __init__(self, prepare: Prepare, count: int) -> None:
        self._prepare = prepare
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="medalign-decode")

    def submit(self, source: ImageSource) -> Future[PreparedImage | FailedImage]:
        return self._pool.submit(self._prepare, source)

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)


def prefetched(
    batches: Iterable[Sequence[ImageSource]], decoders: Decoders, *, ahead: int
) -> Generator[list[PreparedImage | FailedImage], None, None]:
    """Yield each batch prepared, in order, while `decoders` are at most `ahead` batches further on.

    With 0 they rest while the caller is busy with a batch. Closing the iterator drops what has not begun.
    """
    waiting: deque[list[Future[PreparedImage | FailedImage]]] = deque()
    with closing(decoders):
        for batch in batches:
            waiting.append([decoders.submit(source) for source in batch])
            if len(waiting) > ahead:
                yield _results(waiting)
        while waiting:
            yield _results(waiting)


def _results(waiting: deque[list[Future[PreparedImage | FailedImage]]]) -> list[PreparedImage | FailedImage]:
    """Of the first batch, which goes when all are there."""
    results = [future.result() for future in waiting[0]]
    waiting.popleft()
    return results
