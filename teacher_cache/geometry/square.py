"""How an image lands on a model's square. Importing this loads no torch: processes that decode need none."""

from math import ceil
from typing import Literal

from PIL import Image

from .gray_padding import pad_and_resize_grey

Geometry = Literal["pad", "crop"]

JpegScale = Literal["full", "reduced"]
"""Whether JPEGs are decoded at their full size, or reduced by libjpeg where they stay `_MARGIN` times as large as the
square asks for."""

_MARGIN = 2


def fill_colour(mean: tuple[float, ...]) -> tuple[int, int, int]:
    """The 8-bit colour that becomes zero when a model's processor subtracts `mean` (given in [0, 1])."""
    red, green, blue = (int(channel * 255) for channel in mean)
    return red, green, blue


def place_on_square(width: int, height: int) -> tuple[int, int, int]:
    """Side of the square that an image is padded to, and the image's left and top edge on it, in its own pixels."""
    side = max(width, height)
    return side, (side - width) // 2, (side - height) // 2


def to_square(image: Image.Image, size: int, geometry: Geometry, fill: tuple[int, int, int]) -> Image.Image:
    """Bring a grey (L) or RGB image to an RGB square of `size` x `size` pixels, bicubic.

    `pad`: centred on a square of its longer side filled with `fill`, then resized (LLaVA's image_aspect_ratio
    "pad"). `crop`: shorter side resized to `size`, centre cropped (CLIP's preprocessing); loses both ends. A grey image
    gives the same bits as its RGB copy, and is resized as one channel.
    """
    return (_padded if geometry == "pad" else _cropped)(image, size, fill).convert("RGB")


def _padded(image: Image.Image, size: int, fill: tuple[int, int, int]) -> Image.Image:
    width, height = image.size
    side, left, top = place_on_square(width, height)
    if width > height:  # Pillow resizes columns first; rows of padding alone stay what they are
        narrow = image.resize((size, height), Image.Resampling.BICUBIC)
        image = Image.new("RGB", (size, side), fill)
        image.paste(narrow.convert("RGB"), (0, top))
    elif width < height:
        if image.mode == "L" and (square := pad_and_resize_grey(image, side, left, size, fill)):
            return square
        square = Image.new("RGB", (side, side), fill)
        square.paste(image.convert("RGB"), (left, top))
        image = square
    return image.resize((size, size), Image.Resampling.BICUBIC)


def _cropped(image: Image.Image, size: int, _: tuple[int, int, int]) -> Image.Image:
    width, height = image.size
    if width <= height:
        resized = image.resize((size, max(size, int(size * height / width))), Image.Resampling.BICUBIC)
    else:
        resized = image.resize((max(size, int(size * width / height)), size), Image.Resampling.BICUBIC)
    left = round((resized.width - size) / 2)
    top = round((resized.height - size) / 2)
    return resized.crop((left, top, left + size, top + size))


def reduced_to_square(
    image: Image.Image, factor: int, full: tuple[int, int], size: int, geometry: Geometry, fill: tuple[int, int, int]
) -> Image.Image:
    """`to_square` of a picture of `full` pixels that was decoded at 1 / `factor` of its size.

    The reduced picture is rounded up to whole pixels. Everything lies where it lies in the square of the full picture,
    to a fraction of a pixel.
    """
    width, height = full
    image = image.convert("RGB")
    if geometry == "crop":
        target = (max(size, size * width // min(full)), max(size, size * height // min(full)))
        resized = image.resize(target, Image.Resampling.BICUBIC, box=(0, 0, width / factor, height / factor))
        return _cropped(resized, size, fill)
    side, left, top = place_on_square(width, height)
    column, row = -(-left // factor), -(-top // factor)
    x, y = column - left / factor, row - top / factor
    extent = ceil(x + side / factor), ceil(y + side / factor)  # nothing beyond the square mixes with its edge
    square = Image.new("RGB", extent, fill)
    square.paste(image, (column, row))
    return square.resize((size, size), Image.Resampling.BICUBIC, box=(x, y, x + side / factor, y + side / factor))


def jpeg_reduction(width: int, height: int, size: int, geometry: Geometry) -> int:
    """By how much a JPEG is reduced before it is resized to a square of `size`: 8, 4, 2 or 1."""
    side = max(width, height) if geometry == "pad" else min(width, height)
    return next((factor for factor in (8, 4, 2) if side >= factor * _MARGIN * size), 1)
