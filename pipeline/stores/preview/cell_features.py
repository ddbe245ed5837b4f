"""What a cell of the square shows, measured in the image and in a row, so that the two can be compared.

K rows, cells on a grid of at most 12x12: neighboring cells say nearly the same, and fewer make a fit cheaper.
"""

from itertools import combinations_with_replacement
from typing import Final

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn import functional

from ....teacher_cache.geometry.patch_grid import PatchGrid
from ....teacher_cache.geometry.square import fill_color, to_square
from ....teacher_cache.store import StoreHeader, TeacherTarget

_MOST_CELLS: Final = 12
_PIXELS: Final = 16
"""Side of a cell in pixels."""
_CHANNELS: Final = 64
"""Directions onto which E_v is projected."""
_BLOCKS: Final = 3
"""The square in 3x3 blocks, for the similarity of a cell with each of them."""
_EPSILON: Final = 1e-4
"""Added before logarithms: a variance of a few gray levels of 255, so that a flat cell has a finite one."""


def compared_grid(grid: PatchGrid) -> PatchGrid:
    """The grid on which images and rows are compared."""
    return PatchGrid(min(grid.rows, _MOST_CELLS), min(grid.columns, _MOST_CELLS))


def image_cells(image: Image.Image, header: StoreHeader) -> Float[Tensor, "cell measure"]:
    """Intensity, contrast, edges in both directions and fine texture of each cell of the padded square, of its
    neighbors and of the square; and how much its intensity differs from that of each block.
    """
    grid = compared_grid(header.grid)
    side = _PIXELS * max(grid.rows, grid.columns)
    square = to_square(image, side, header.geometry, fill_color(header.mean))
    gray = torch.from_numpy(np.asarray(square, np.float32) / 255).mean(dim=2)
    across = functional.pad(gray[:, 1:] - gray[:, :-1], (0, 1))
    down = functional.pad(gray[1:] - gray[:-1], (0, 0, 0, 1))
    fine = gray - _box_mean(gray, 3)
    mean = _pooled(gray, grid)
    energies = [_pooled(gray.square(), grid) - mean.square()]
    energies += [_pooled(part.square(), grid) for part in (across, down, fine)]
    own = torch.stack([mean, *(torch.log(energy.clamp_min(0) + _EPSILON) for energy in energies)])
    whole = own.mean(dim=(1, 2), keepdim=True)
    gaps = (own - whole)[:3]
    products = torch.stack([one * other for one, other in combinations_with_replacement(gaps, 2)])
    quarters = functional.pixel_unshuffle(_pooled(gray, PatchGrid(2 * grid.rows, 2 * grid.columns))[None, None], 2)[0]
    maps = [own, quarters, _box_mean(own, 3), _box_mean(own, 5), whole.expand_as(own), products]
    blocks = functional.adaptive_avg_pool2d(mean[None], _BLOCKS).flatten()
    contrast = (mean.flatten()[:, None] - blocks[None]).abs()
    return torch.cat([torch.cat(maps).flatten(1).T, contrast], dim=1)


class RowCells:
    """Measures of rows: E_v along a few directions, norm, attention, and the cosines with neighbors and blocks.

    The scale of each channel is that of the first rows, because some teachers have channels of a hundred times the
    usual size.
    """

    def __init__(self, header: StoreHeader, first: list[TeacherTarget]) -> None:
        self._grid = header.grid
        patches = [target.E_v for target in first if target.E_v is not None]
        self._projection: Tensor | None = None
        if patches:
            together = torch.cat(patches)
            self._mean, self._scale = together.mean(dim=0), together.std(dim=0).clamp_min(1e-6)
            random = torch.randn(header.width, min(_CHANNELS, header.width), generator=torch.Generator().manual_seed(0))
            self._projection = torch.linalg.qr(random)[0]

    def measure(self, target: TeacherTarget, S: Float[Tensor, "patch patch"]) -> Float[Tensor, "cell measure"]:
        """The measures of a row with cosines `S`, on the compared grid."""
        maps = [torch.log(target.E_a.clamp_min(1e-12))[:, None], S.mean(dim=1, keepdim=True)]
        if target.E_v is not None and self._projection is not None:
            maps.append((target.E_v - self._mean) / self._scale @ self._projection)
            maps.append(torch.linalg.vector_norm(target.E_v, dim=1, keepdim=True).clamp_min(1e-12).log())
        maps += [self._neighbors(S), self._blocks(S)]
        together = torch.cat(maps, dim=1).T.reshape(-1, self._grid.rows, self._grid.columns)
        grid = compared_grid(self._grid)
        return functional.adaptive_avg_pool2d(together, (grid.rows, grid.columns)).flatten(1).T

    def _neighbors(self, S: Float[Tensor, "patch patch"]) -> Float[Tensor, "patch 1"]:
        """Mean cosine of each patch with those beside, above and below it."""
        index = torch.arange(len(S)).view(self._grid.rows, self._grid.columns)
        sums, counts = torch.zeros(len(S)), torch.zeros(len(S))
        for one, other in ((index[:, :-1], index[:, 1:]), (index[:-1], index[1:])):
            one, other = one.reshape(-1), other.reshape(-1)
            for here in (one, other):
                sums.index_add_(0, here, S[one, other])
                counts.index_add_(0, here, torch.ones(len(here)))
        return (sums / counts.clamp_min(1))[:, None]

    def _blocks(self, S: Float[Tensor, "patch patch"]) -> Float[Tensor, "patch block"]:
        maps = S.view(-1, self._grid.rows, self._grid.columns)
        return functional.adaptive_avg_pool2d(maps, _BLOCKS).flatten(1)


def _pooled(values: Float[Tensor, "height width"], grid: PatchGrid) -> Float[Tensor, "rows columns"]:
    return functional.adaptive_avg_pool2d(values[None], (grid.rows, grid.columns))[0]


def _box_mean(values: Tensor, size: int) -> Tensor:
    """Mean over a square around each cell; the border is repeated."""
    margin = size // 2
    maps = values.reshape(1, -1, *values.shape[-2:])
    padded = functional.pad(maps, (margin, margin, margin, margin), mode="replicate")
    return functional.avg_pool2d(padded, size, 1).reshape(values.shape)
