"""Pixels around each patch as features, a baseline for what a vision tower could know about the patch."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from ...teacher_cache.geometry.patch_grid import PatchGrid

SAMPLES = 4
"""Samples along each side of a patch; each is the mean of its pixels."""


def pixel_features(
    pixels: Float[Tensor, "images channels height width"], grid: PatchGrid
) -> Float[Tensor, "images patches features"]:
    """The means of 4 x 4 parts of each patch and of its eight neighbors, in all channels; edges are repeated."""
    shrunk = functional.adaptive_avg_pool2d(pixels.float(), (grid.rows * SAMPLES, grid.columns * SAMPLES))
    padded = functional.pad(shrunk, (SAMPLES,) * 4, mode="replicate")
    windows = functional.unfold(padded, kernel_size=3 * SAMPLES, stride=SAMPLES)
    return torch.transpose(windows, 1, 2).contiguous()
