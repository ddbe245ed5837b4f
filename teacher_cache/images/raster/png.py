"""PNG problems that Pillow does not report: missing rows, and the lower bytes of 16-bit samples (W3C PNG)."""

import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

from ..contrast import FEW_LEVELS, gray16, is_one_color, require_contrast
from ..image_errors import DAMAGED, FROM_SOURCE, UnreadableImage

_GRAY_WITH_ALPHA = 4
"""Color type."""

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Interlace passes: first column, first row, column step and row step."""

_BLOCK = 1 << 20


def require_whole_png(data: bytes, decoded: Image.Image) -> None:
    """Check that a PNG's data have all rows. Pillow silently leaves missing rows at zero.

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
    """Check that 16-bit color does not vary only in the lower bytes, because Pillow reads only the upper ones.

    Raises:
        UnreadableImage: it does.
    """
    if data[12:16] != b"IHDR" or data[24] != 16 or data[25] == 0 or not is_one_color(np.asarray(shown)):
        return
    import imagecodecs

    stored = np.asarray(imagecodecs.png_decode(data))
    require_contrast(stored, np.asarray(shown), "16-bit PNG", FEW_LEVELS)


def deep_gray_with_alpha(data: bytes) -> Image.Image | None:
    """Decode 16-bit gray with alpha, which Pillow reduces to 8 bits, to mode I;16 without alpha; else `None`."""
    if data[12:16] != b"IHDR" or data[24] != 16 or data[25] != _GRAY_WITH_ALPHA:
        return None
    import imagecodecs

    return gray16(np.asarray(imagecodecs.png_decode(data))[..., 0])


def _inflated_length(data: bytes, enough: int) -> int:
    """Inflated size of all rows, counted only up to `enough`, because a malicious file may have far more."""
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
