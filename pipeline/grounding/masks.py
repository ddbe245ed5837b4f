"""Annotated regions as pixels of the upright image."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from ...errors import InputError
from ..regions import Region

PixelValues = np.ndarray[tuple[int, int], np.dtype[np.int64]]

_LABEL_MODES = ("1", "L", "P", "I", "I;16")


def region_pixels(regions: Sequence[Region], root: Path, width: int, height: int) -> Float[Tensor, "{height} {width}"]:
    """Share of each pixel that lies inside any of the regions: 0 or 1 for masks, parts of pixels at a box's edges.

    Where regions overlap, the larger share counts. What reaches over the image's edge is cut off.

    Raises:
        InputError: a mask is missing, unreadable, not single-channel, or of another size than its image.
    """
    inside = torch.zeros(height, width)
    for region in regions:
        if region.mask is not None:
            values = read_label_image(root / region.mask, width, height)
            found = torch.from_numpy(values != 0 if region.value is None else values == region.value).float()
        else:
            assert region.box is not None  # the manifest's rule
            x, y, wide, tall = region.box
            found = torch.outer(_covered(y, tall, height), _covered(x, wide, width))
        inside = torch.maximum(inside, found)
    return inside


def read_label_image(path: Path, width: int, height: int) -> PixelValues:
    """Pixel values of a mask file; of a palette image the palette's numbers.

    Raises:
        InputError: as for `region_pixels`.
    """
    try:
        with Image.open(path) as image:
            mode, size = image.mode, image.size
            values = np.array(image).astype(np.int64)
    except FileNotFoundError as error:
        raise InputError(f"there is no mask {path}; if the data moved, --root says where to") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not a readable mask: {error}") from error
    if mode not in _LABEL_MODES:
        raise InputError(f"the mask {path} has mode {mode}; a mask has one channel ({', '.join(_LABEL_MODES)})")
    if size != (width, height):
        raise InputError(f"the mask {path} is {size[0]}x{size[1]} pixels, its image {width}x{height}")
    return values


def _covered(start: float, length: float, pixels: int) -> Float[Tensor, " pixels"]:
    """Share of each pixel of one axis between `start` and `start + length`."""
    pixel = torch.arange(pixels, dtype=torch.float64)
    ends = (pixel + 1).clamp(max=start + length)
    return (ends - pixel.clamp(min=start)).clamp(min=0).float()
