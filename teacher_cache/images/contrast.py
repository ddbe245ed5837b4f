"""Pictures that show nothing of what their files hold, and pictures that show little of it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .image_errors import UnreadableImage

_USUAL_BITS = (8, 10, 12, 13)

FEW_LEVELS = "its colors differ by less than one of 256 levels; stretch and save it"

NARROW = 8
"""A picture is narrow where its values lie within an eighth of what its pixels can hold."""


def require_contrast(stored: NDArray[Any], shown: NDArray[Any], kind: str, why: str) -> None:
    """Check that a picture does not have one color where what is stored varies. Both: [height, width, ...].

    Raises:
        UnreadableImage: it has; `kind` is what the file is, `why` says how it comes and what helps.
    """
    if stored.size and is_one_color(shown) and not is_one_color(stored):
        raise UnreadableImage(
            f"{kind} whose stored values vary from {stored.min():.6g} to {stored.max():.6g} and whose picture has one "
            f"color: {why}"
        )


def is_one_color(values: NDArray[Any]) -> bool:
    """Whether all pixels [height, width, ...] are equal."""
    return bool((values == values[:1, :1]).all())


@dataclass(frozen=True, slots=True)
class Canonical:
    """An upright image in mode L, RGB or I;16."""

    image: Image.Image
    narrow: bool
    """Its values lie within an eighth of what its pixels can hold."""
    size: tuple[int, int] | None = None
    """Upright width and height in the file, where the image was decoded at a reduced size."""


def canonical(image: Image.Image) -> Canonical:
    """An image of mode L, RGB or I;16 as it is, except that 16-bit grey within an eighth of its range is scaled.

    Values of 8, 10, 12 or 13 bits in words of 16 bits become the same picture as if the file said so: shifted to the
    top of the word. Otherwise 12-bit CT in a 16-bit PNG has a mean grey of 7 of 255.
    """
    full = 2**16 if image.mode == "I;16" else 2**8
    low, high = _extremes(image.resize((min(64, image.width), min(64, image.height)), Image.Resampling.NEAREST))
    if high - low >= full // NARROW:  # a sample of the pixels shows it for most pictures
        return Canonical(image, narrow=False)
    low, high = _extremes(image)
    if image.mode == "I;16" and high < full // NARROW:
        bits = next(bits for bits in _USUAL_BITS if high < 1 << bits)
        image = grey16(np.asarray(image) << (16 - bits))
    return Canonical(image, narrow=high - low < full // NARROW)


def _extremes(image: Image.Image) -> tuple[int, int]:
    """The smallest and the largest sample of all channels."""
    extrema = image.getextrema()
    channels = extrema if isinstance(extrema[0], tuple) else (extrema,)
    return int(min(channel[0] for channel in channels)), int(max(channel[1] for channel in channels))


def grey16(values: NDArray[Any]) -> Image.Image:
    """An image in mode I;16 of values in 0..65535."""
    return Image.frombuffer("I;16", values.shape[::-1], values.astype("<u2").tobytes(), "raw", "I;16", 0, 1)
