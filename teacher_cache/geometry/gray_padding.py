"""Padding a gray image with a color and resizing it, with the same bits as in RGB and a third of the arithmetic.

Pillow resizes 8-bit images one channel and one direction at a time, columns first, and rounds each result to 8 bits. So
the three channels differ only where padding contributes. Columns that mix image and padding are computed here with
Pillow's fixed-point arithmetic. A few rows of every image are compared with Pillow's result; if they differ, the caller
uses the RGB path.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_BITS = 22
"""Fractional bits of Pillow's weights for 8-bit samples."""

_A = -0.5
"""Parameter of Pillow's bicubic filter."""


class _Weights(NamedTuple):
    """The source columns and weights of each column of the result."""

    first: NDArray[np.int64]
    """[size] index of the first source column."""
    end: NDArray[np.int64]
    """[size] index after the last source column."""
    values: NDArray[np.int64]
    """[size, taps] multiples of 2^-22; 0 beyond `end`."""


def pad_and_resize_gray(
    image: Image.Image, side: int, left: int, size: int, fill: tuple[int, int, int]
) -> Image.Image | None:
    """RGB image [size, size] of an upright gray image at column `left` of a square of `side` pixels in color `fill`.

    `None` if this method does not reproduce Pillow.
    """
    if side <= size:
        return None
    columns = _padded_columns(image, side, left, size, fill)
    return None if columns is None else Image.fromarray(columns).resize((size, size), Image.Resampling.BICUBIC)


def _padded_columns(
    image: Image.Image, side: int, left: int, size: int, fill: tuple[int, int, int]
) -> NDArray[np.uint8] | None:
    """RGB [side, size, 3] of an upright image: resized columns, original rows."""
    padded = Image.new("L", (side, side), fill[0])
    padded.paste(image, (left, 0))
    gray = np.asarray(padded.resize((size, side), Image.Resampling.BICUBIC))
    colors = np.empty((side, size, 3), np.uint8)
    colors[...] = gray[..., None]
    weights, right = _weights(side, size), left + image.width
    bare = (weights.end <= left) | (weights.first >= right)
    colors[:, bare] = fill
    pixels = np.asarray(image)
    for column in np.flatnonzero(~bare & ((weights.first < left) | (weights.end > right))):
        begin, end = max(weights.first[column], left), min(weights.end[column], right)
        row = weights.values[column]
        inside = row[begin - weights.first[column] : end - weights.first[column]]
        sums = pixels[:, begin - left : end - left].astype(np.int64) @ inside
        beside = row.sum() - inside.sum()
        for channel, level in enumerate(fill):
            whole = sums + (level * beside + (1 << _BITS - 1)) >> _BITS
            colors[:, column, channel] = np.clip(whole, 0, 255)
    rows = (0, side // 2, side - 1)
    return (
        colors if all(np.array_equal(colors[row], _row(image, row, side, left, size, fill)) for row in rows) else None
    )


def _row(
    image: Image.Image, row: int, side: int, left: int, size: int, fill: tuple[int, int, int]
) -> NDArray[np.uint8]:
    """One row [size, 3], computed by Pillow."""
    padded = Image.new("RGB", (side, 1), fill)
    padded.paste(image.crop((0, row, image.width, row + 1)).convert("RGB"), (left, 0))
    row_of_colors: NDArray[np.uint8] = np.asarray(padded.resize((size, 1), Image.Resampling.BICUBIC))[0]
    return row_of_colors


@lru_cache(maxsize=256)
def _weights(side: int, size: int) -> _Weights:
    """Pillow's normalized weights for downscaling `side` columns: a bicubic filter as wide as the ratio."""
    scale = side / size
    centers = (np.arange(size) + 0.5) * scale
    first = np.maximum(0, (centers - 2 * scale + 0.5).astype(np.int64))
    end = np.minimum(side, (centers + 2 * scale + 0.5).astype(np.int64))
    taps = np.arange((end - first).max())
    distance = abs((taps + first[:, None] - centers[:, None] + 0.5) * (1.0 / scale))
    near = ((_A + 2) * distance - (_A + 3)) * distance * distance + 1
    far = (((distance - 5) * distance + 8) * distance - 4) * _A
    values = np.where(distance < 1, near, np.where(distance < 2, far, 0.0))
    values[taps >= (end - first)[:, None]] = 0
    values /= values.sum(axis=1, keepdims=True)
    rounded = np.trunc(values * (1 << _BITS) + np.copysign(0.5, values))
    return _Weights(first, end, rounded.astype(np.int64))
