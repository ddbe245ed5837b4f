"""The one error of this package, and how much of an image is too much."""

from ...errors import InputError

MAX_PIXELS = 80_000_000
"""Width times height. A mammogram has up to some 30 million; far beyond it are slides and bombs. Below Pillow's own
warning at 89 million."""

MAX_SIDE = 15_000
"""Pixels of the longer side: teachers and students pad an image to a square of it."""

MAX_ASPECT = 100
"""Longer over shorter side; a strip beyond it is no picture, and a crop of it would be enlarged without a bound."""

FROM_SOURCE = "get the file again from its source"
DAMAGED = "truncated or damaged image data"


class UnreadableImage(InputError):
    """The bytes are not an image that can be decoded completely.

    `reason` is one line without any path and without anything from the file's header that could tell of a patient:
    it is written to stores.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def require_size(width: int, height: int) -> None:
    """Hold that an image of this size can be decoded in bounded memory and time.

    Raises:
        UnreadableImage: too many pixels, none, or in too long a strip.
    """
    if width < 1 or height < 1:
        raise UnreadableImage(f"no pixels: {width} x {height}")
    if width * height > MAX_PIXELS:
        raise UnreadableImage(f"{width} x {height} pixels, more than the {MAX_PIXELS} that one image may have")
    long, short = max(width, height), min(width, height)
    if long > MAX_SIDE or long > MAX_ASPECT * short:
        raise UnreadableImage(f"{width} x {height} pixels: at most {MAX_SIDE} on a side and {MAX_ASPECT} to 1")
