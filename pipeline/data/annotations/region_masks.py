"""Annotated regions as pixels of the upright image."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from ..label_images import read_label_image
from ..regions import Region


def region_pixels(
    regions: Sequence[Region], root: Path, width: int, height: int, hashes: Mapping[str, str] | None = None
) -> Float[Tensor, "{height} {width}"]:
    """Fraction of each pixel inside any of the regions: 0 or 1 for masks, fractions at the edges of boxes.

    Where regions overlap, the larger fraction counts. Regions are clipped to the image. `hashes` are the hashes of mask
    files by name, if the manifest has them.

    Raises:
        InputError: A mask is missing, unreadable, in color, of another size than its image, or has another hash.
    """
    inside = torch.zeros(height, width)
    for region in regions:
        if region.mask is not None:
            values = read_label_image(root / region.mask, width, height, (hashes or {}).get(region.mask))
            found = torch.from_numpy(values != 0 if region.value is None else values == region.value).float()
        else:
            assert region.box is not None  # the manifest's rule
            x, y, wide, tall = region.box
            found = torch.outer(_covered(y, tall, height), _covered(x, wide, width))
        inside = torch.maximum(inside, found)
    return inside


def _covered(start: float, length: float, pixels: int) -> Float[Tensor, " pixels"]:
    """Fraction of each pixel along one axis between `start` and `start + length`."""
    pixel = torch.arange(pixels, dtype=torch.float64)
    ends = (pixel + 1).clamp(max=start + length)
    return (ends - pixel.clamp(min=start)).clamp(min=0).float()
