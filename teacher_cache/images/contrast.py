"""Detecting pictures that show nothing, or little, of the values in their files."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .image_errors import UnreadableImage

_USUAL_BITS = (8, 10, 12, 13)

FEW_LEVELS = "its colors differ by less than one of 256 levels; stretch its contrast and save it again"

NARROW = 8
"""A picture is narrow if its values use less than an eighth of its pixels' range."""


def require_contrast(stored: NDArray[Any], shown: NDArray[Any], kind: str, why: str) -> None:
    """Check that a picture does not have a single color if the stored values vary. Both are [height, width, ...].

    Raises:
        UnreadableImage: it does; `kind` names the kind of file, and `why` gives the cause and the remedy.
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
    """Its values use less than an eighth of its pixels' range."""
    size: tuple[int, int] | None = None
    """Upright width and height in the file, if the image was decoded at a reduced size."""


def canonical(image: Image.Image) -> Canonical:
    """Keep an image of mode L, RGB or I;16, but scale 16-bit gray whose values are below an eighth of its range.

    Values of 8, 10, 12 or 13 bits in 16-bit words are shifted to the top of the word, as if the file declared their
    bits. Otherwise a 12-bit CT in a 16-bit PNG has a mean gray level of 7 of 255.
    """
    full = 2**16 if image.mode == "I;16" else 2**8
    low, high = _extremes(image.resize((min(64, image.width), min(64, image.height)), Image.Resampling.NEAREST))
    if high - low >= full // NARROW:  # for most pictures, a sample of the pixels is sufficient
        return Canonical(image, narrow=False)
    low, high = _extremes(image)
    if image.mode == "I;16" and high < full // NARROW:
        bits = next(bits for bits in _USUAL_BITS if high < 1 << bits)
        image = gray16(np.asarray(image) << (16 - bits))
    return Canonical(image, narrow=high - low < full // NARROW)


def _extremes(image: Image.Image) -> tuple[int, int]:
    """Smallest and largest sample of all channels."""
    extrema = image.getextrema()
    channels = extrema if isinstance(extrema[0], tuple) else (extrema,)
    return int(min(channel[0] for channel in channels)), int(max(channel[1] for channel in channels))


def gray16(values: NDArray[Any]) -> Image.Image:
    """An image in mode I;16 from values in 0..65535."""
    return Image.frombuffer("I;16", values.shape[::-1], values.astype("<u2").tobytes(), "raw", "I;16", 0, 1)
