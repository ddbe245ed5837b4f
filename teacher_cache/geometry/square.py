"""Placing an image on a model's square input. Importing this module does not load torch."""

from math import ceil

from PIL import Image

from ...choices import Geometry
from .gray_padding import pad_and_resize_gray

_MARGIN = 2


def fill_color(mean: tuple[float, ...]) -> tuple[int, int, int]:
    """The 8-bit color that becomes zero when a model's processor subtracts `mean` (in [0, 1])."""
    red, green, blue = (int(channel * 255) for channel in mean)
    return red, green, blue


def place_on_square(width: int, height: int) -> tuple[int, int, int]:
    """Side of the padded square, and left and top edge of the image on it, in pixels of the image."""
    side = max(width, height)
    return side, (side - width) // 2, (side - height) // 2


def to_square(image: Image.Image, size: int, geometry: Geometry, fill: tuple[int, int, int]) -> Image.Image:
    """Convert a gray (L) or RGB image to an RGB square of `size` x `size` pixels with bicubic resizing.

    `pad`: center it on a square of its longer side filled with `fill`, then resize (LLaVA's image_aspect_ratio "pad").
    `crop`: resize the shorter side to `size` and crop the center (CLIP's preprocessing), which loses both ends. A gray
    image gives the same bits as its RGB copy, but is resized as one channel.
    """
    return (_padded if geometry == "pad" else _cropped)(image, size, fill).convert("RGB")


def _padded(image: Image.Image, size: int, fill: tuple[int, int, int]) -> Image.Image:
    width, height = image.size
    side, left, top = place_on_square(width, height)
    if width > height:  # Pillow resizes columns first, which does not change rows of padding
        narrow = image.resize((size, height), Image.Resampling.BICUBIC)
        image = Image.new("RGB", (size, side), fill)
        image.paste(narrow.convert("RGB"), (0, top))
    elif width < height:
        if image.mode == "L" and (square := pad_and_resize_gray(image, side, left, size, fill)):
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
    """`to_square` for a picture of `full` pixels that was decoded at 1 / `factor` of its size.

    The size of the reduced picture is rounded up to whole pixels. Positions on the square equal those of the full
    picture to a fraction of a pixel.
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
    extent = ceil(x + side / factor), ceil(y + side / factor)  # pixels outside the square do not affect its edge
    square = Image.new("RGB", extent, fill)
    square.paste(image, (column, row))
    return square.resize((size, size), Image.Resampling.BICUBIC, box=(x, y, x + side / factor, y + side / factor))


def jpeg_reduction(width: int, height: int, size: int, geometry: Geometry) -> int:
    """The factor (8, 4, 2 or 1) by which a JPEG is reduced before it is resized to a square of `size`."""
    side = max(width, height) if geometry == "pad" else min(width, height)
    return next((factor for factor in (8, 4, 2) if side >= factor * _MARGIN * size), 1)
