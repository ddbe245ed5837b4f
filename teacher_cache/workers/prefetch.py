"""Reading and decoding images ahead of the teacher, in order, with a bounded number of batches in advance.

Importing this module does not load torch, which decoding processes do not need.
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

from ...choices import Geometry, JpegScale
from ..geometry.square import fill_color, jpeg_reduction, reduced_to_square, to_square
from ..images import UnreadableImage, read_expected_image
from ..teachers.registry import TeacherSpec


@dataclass(frozen=True, slots=True)
class ImageSource:
    """An image file and the SHA-256 of its bytes at planning time."""

    path: Path
    image_hash: str
    pixel_hash: str | None = None
    """SHA-256 of its pixels, which also identifies a losslessly re-saved file; `None`: only its bytes identify it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedImage:
    """An image as the teacher's square input; `to_pixel_batch` normalizes a batch of them on the teacher's device."""

    image_hash: str
    pixel_hash: str
    size: tuple[int, int]
    """Width and height of the upright image, pixels."""
    square: NDArray[np.uint8]
    """[side, side, 3], RGB."""
    narrow: bool
    """The image uses less than an eighth of its pixels' range."""


@dataclass(frozen=True, slots=True)
class FailedImage:
    """An image without a row, and the reason: one line without a path."""

    image_hash: str
    reason: str


Prepare = Callable[[ImageSource], PreparedImage | FailedImage]


def prepare_image(
    source: ImageSource, spec: TeacherSpec, geometry: Geometry, jpeg_scale: JpegScale = "full"
) -> PreparedImage | FailedImage:
    """Read, check and decode one image and place it on the square; a failure becomes its reason."""
    reduction = None
    if jpeg_scale == "reduced":
        reduction = partial(jpeg_reduction, size=spec.image_size, geometry=geometry)
    try:
        decoded = read_expected_image(source.path, source.image_hash, source.pixel_hash, reduction)
    except UnreadableImage as error:
        return FailedImage(source.image_hash, error.reason)
    fill, full = fill_color(spec.mean), decoded.full_size
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
    """Prepares images in the background: with threads, or with the processes of `decode_pool`."""

    def submit(self, source: ImageSource) -> Future[PreparedImage | FailedImage]:
        """Prepare an image in the background; images are started in the order of these calls."""

    def close(self) -> None:
        """Drop images that have not been started, and end. Nothing may be submitted afterwards."""


class DecodeThreads:
    """Decodes in threads of this process."""

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
    """Yield prepared batches in order, while `decoders` work at most `ahead` batches in advance.

    With `ahead` 0 they are idle while the caller processes a batch. Closing the iterator drops images that have not
    been started.
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
    """Wait for the results of the first batch and remove it."""
    results = [future.result() for future in waiting[0]]
    waiting.popleft()
    return results
