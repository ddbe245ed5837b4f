"""The exception of this package, and the size limits for images."""

from ...errors import InputError

MAX_PIXELS = 80_000_000
"""Maximum width times height. A mammogram has up to about 30 million pixels; far larger are only slides and
decompression bombs. It is below the limit of 89 million at which Pillow warns."""

MAX_SIDE = 15_000
"""Maximum length of the longer side in pixels, because teachers and students pad an image to a square of this side."""

MAX_ASPECT = 100
"""Maximum ratio of the sides. A longer strip is not a picture, and cropping it would enlarge it without limit."""

FROM_SOURCE = "get the file again from its source"
MAKE_SMALLER = ": crop or resize it"
DAMAGED = "truncated or damaged image data"


class UnreadableImage(InputError):
    """The bytes cannot be decoded completely as an image.

    `reason` is written to stores. It is one line without a path and without anything from the file's header that could
    identify a patient.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def require_size(width: int, height: int) -> None:
    """Check that an image of this size can be decoded in bounded memory and time.

    Raises:
        UnreadableImage: it has no pixels, too many pixels, or too extreme an aspect ratio.
    """
    if width < 1 or height < 1:
        raise UnreadableImage(f"no pixels: {width} x {height}")
    if width * height > MAX_PIXELS:
        raise UnreadableImage(
            f"{width} x {height} pixels, more than the {MAX_PIXELS} that one image may have{MAKE_SMALLER}"
        )
    long, short = max(width, height), min(width, height)
    if long > MAX_SIDE or long > MAX_ASPECT * short:
        raise UnreadableImage(
            f"{width} x {height} pixels, but one image may have at most {MAX_SIDE} on a side and an aspect ratio of "
            f"{MAX_ASPECT} to 1{MAKE_SMALLER}"
        )
