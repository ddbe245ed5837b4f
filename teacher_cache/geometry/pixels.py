"""Normalized pixels of a square, and interpolation between patch grids.

The student pads an image to a square with its mean color and resizes it. A teacher with the same square (`pad`) has the
same tissue in cell (i, j). With the released code's center crop (`crop`) it does not, unless the image is square.
"""

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

from .patch_grid import PatchGrid


def to_pixels(square: Image.Image, mean: tuple[float, ...], std: tuple[float, ...]) -> Float[Tensor, "3 size size"]:
    """Scale an 8-bit RGB square to [0, 1] and normalize each channel."""
    array = np.asarray(square)
    pixels = np.empty((3, *array.shape[:2]), np.float32)
    for channel, table in enumerate(_normalized_levels(mean, std)):
        np.take(table, array[..., channel], out=pixels[channel])
    return torch.from_numpy(pixels)


def to_pixel_batch(
    squares: UInt8[Tensor, "batch size size 3"], mean: tuple[float, ...], std: tuple[float, ...]
) -> Float32[Tensor, "batch 3 size size"]:
    """`to_pixels` for several squares, on their device. It is a table lookup, so all devices give the same bits."""
    tables = torch.from_numpy(_normalized_levels(mean, std)).to(squares.device, non_blocking=True)
    batch, height, width, _ = squares.shape
    pixels = torch.empty((batch, 3, height, width), dtype=torch.float32, device=squares.device)
    for channel in range(3):
        indices = squares[..., channel].int().flatten()
        pixels[:, channel] = tables[channel].index_select(0, indices).view(batch, height, width)
    return pixels


def _normalized_levels(mean: tuple[float, ...], std: tuple[float, ...]) -> NDArray[np.float32]:
    """[3, 256]: the normalized value of each 8-bit level of each channel."""
    levels = np.arange(256, dtype=np.float32) / 255.0
    centers, spreads = np.array(mean, np.float32)[:, None], np.array(std, np.float32)[:, None]
    return np.asarray((levels - centers) / spreads, np.float32)


def interpolate_patches(
    values: Float[Tensor, "batch source channels"], source: PatchGrid, target: PatchGrid
) -> Float[Tensor, "batch target channels"]:
    """Bilinear interpolation between patch grids (Eq. 2), `align_corners=False`, computed in float32.

    Raises:
        ValueError: the number of patches does not match `source`.
    """
    if values.shape[1] != source.patches:
        raise ValueError(f"there are {values.shape[1]} patches, but a {source} grid has {source.patches}")
    if source == target:
        return values.float()
    batch, _, channels = values.shape
    maps = values.float().transpose(1, 2).reshape(batch, channels, source.rows, source.columns)
    resized = functional.interpolate(maps, size=(target.rows, target.columns), mode="bilinear", align_corners=False)
    return resized.flatten(2).transpose(1, 2)
