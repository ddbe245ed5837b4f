"""What Pillow does not say of a PNG: rows that are missing, and the lower bytes of 16-bit samples (W3C PNG)."""

import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

from ..contrast import FEW_LEVELS, grey16, is_one_color, require_contrast
from ..image_errors import DAMAGED, FROM_SOURCE, UnreadableImage

_GREY_WITH_ALPHA = 4
"""Color type."""

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Of each pass: first column, first row, steps between columns and between rows."""

_BLOCK = 1 << 20


def require_whole_png(data: bytes, decoded: Image.Image) -> None:
    """Check that a PNG's data have all rows. Pillow leaves missing rows at zero without a word.

    Raises:
        UnreadableImage: rows are missing.
    """
    interlaced = data[28] == 1
    last_row = decoded.crop((0, decoded.height - 1, *decoded.size))
    if data[12:16] != b"IHDR" or (not interlaced and np.asarray(last_row).any()):
        return
    bits = data[24] * _CHANNELS[data[25]]
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    needed = 0
    for left, top, step, row_step in passes:
        columns, rows = -(-(decoded.width - left) // step), -(-(decoded.height - top) // row_step)
        needed += rows * (1 + -(-columns * bits // 8)) if columns > 0 and rows > 0 else 0
    if _inflated_length(data, needed) < needed:
        raise UnreadableImage(f"{DAMAGED}: the PNG has fewer rows than its header says; {FROM_SOURCE}")


def require_visible_png(data: bytes, shown: Image.Image) -> None:
    """Check that color of 16 bits, of which Pillow reads the upper bytes, is not in the lower ones alone.

    Raises:
        UnreadableImage: it is.
    """
    if data[12:16] != b"IHDR" or data[24] != 16 or data[25] == 0 or not is_one_color(np.asarray(shown)):
        return
    import imagecodecs

    stored = np.asarray(imagecodecs.png_decode(data))
    require_contrast(stored, np.asarray(shown), "16-bit PNG", FEW_LEVELS)


def deep_grey_with_alpha(data: bytes) -> Image.Image | None:
    """Mode I;16 of 16-bit grey with alpha, which Pillow reduces to 8 bits; alpha is dropped. `None` for all others."""
    if data[12:16] != b"IHDR" or data[24] != 16 or data[25] != _GREY_WITH_ALPHA:
        return None
    import imagecodecs

    return grey16(np.asarray(imagecodecs.png_decode(data))[..., 0])


def _inflated_length(data: bytes, enough: int) -> int:
    """Bytes of all rows, counted until there are enough: a crafted file may have far more."""
    inflater, length = zlib.decompressobj(), 0
    for chunk in _image_data(data):
        while chunk and not inflater.eof and length < enough:
            try:
                length += len(inflater.decompress(chunk, _BLOCK))
            except zlib.error:
                return length
            chunk = inflater.unconsumed_tail
    return length


def _image_data(data: bytes) -> Iterator[bytes]:
    position = 8
    while position + 8 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        if data[position + 4 : position + 8] == b"IDAT":
            yield data[position + 8 : position + 8 + length]
        position += 12 + length
