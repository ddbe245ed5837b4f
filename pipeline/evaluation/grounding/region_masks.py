"""Annotated regions as pixels of the upright image."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from ...data.label_images import read_label_image
from ...data.regions import Region


def region_pixels(
    regions: Sequence[Region], root: Path, width: int, height: int, hashes: Mapping[str, str] | None = None
) -> Float[Tensor, "{height} {width}"]:
    """Share of each pixel that lies inside any of the regions: 0 or 1 for masks, parts of pixels at a box's edges.

    Where regions overlap, the larger share counts. What reaches over the image's edge is cut off. `hashes` are those of
    mask files by name, as far as the manifest has them.

    Raises:
        InputError: a mask is missing, unreadable, coloured, of another size than its image, or of another hash.
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
    """Share of each pixel of one axis between `start` and `start + length`."""
    pixel = torch.arange(pixels, dtype=torch.float64)
    ends = (pixel + 1).clamp(max=start + length)
    return (ends - pixel.clamp(min=start)).clamp(min=0).float()
