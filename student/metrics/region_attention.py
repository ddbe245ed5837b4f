"""Attention to annotated regions, and agreement of patch features, as pure functions on the patch grid.

`coverage` is the fraction of each cell's area that the annotated region covers, on the same square as the student's
image. Measures for an empty region, and shares of an attention map that sums to zero, are nan. N patches.
"""

import math

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from ...teacher_cache.geometry.patch_grid import PatchGrid
from ..inputs.views import ImageLayout, View, square_layout

ENERGY_SHARE = 0.5
"""Share of the attention in the cells of `energy_iou`."""


def region_coverage(inside: Shaped[Tensor, "height width"], grid: PatchGrid) -> Float[Tensor, " patch"]:
    """Fraction of each cell's area that a region covers, after its image is padded to the student's square.

    `inside` is the share of each pixel of the upright image inside the region, in [0, 1] (0 or 1 for a mask). Exact for
    any size: a pixel across a cell border counts proportionally.
    """
    height, width = inside.shape
    return token_coverage(inside, square_layout(width, height, grid))


def token_coverage(inside: Shaped[Tensor, "height width"], layout: ImageLayout) -> Float[Tensor, " token"]:
    """`region_coverage` for each of an image's tokens, through the views of the image; 0 for tokens without a place."""
    covered = torch.zeros(layout.tokens)
    for view in layout.views:
        covered[list(view.tokens)] = _view_coverage(inside, view).flatten().float()
    return covered


def _view_coverage(inside: Shaped[Tensor, "height width"], view: View) -> Float[Tensor, "rows columns"]:
    height, width = inside.shape
    x, y, box_width, box_height = view.box
    rows = _overlap(height, -y, box_height, view.rows)
    columns = _overlap(width, -x, box_width, view.columns)
    return rows @ inside.double() @ columns.T


def _overlap(pixels: int, start: float, side: float, cells: int) -> Float[Tensor, "cell pixel"]:
    """Share of each cell that each pixel covers, along one axis; pixels start at `start` of `side`."""
    pixel = (torch.arange(pixels, dtype=torch.float64) + start) / side
    cell = torch.arange(cells, dtype=torch.float64) / cells
    ends = torch.minimum((cell + 1 / cells)[:, None], (pixel + 1 / side)[None, :])
    starts = torch.maximum(cell[:, None], pixel[None, :])
    return (ends - starts).clamp(min=0) * cells


def attention_mass_inside(
    attention: Float[Tensor, "*batch patch"], coverage: Float[Tensor, "*batch patch"]
) -> Float[Tensor, "*batch"]:
    """Share of the attention inside the region, spread evenly over the area of each cell, in [0, 1].

    The energy-based pointing game of Score-CAM (Wang et al. 2020).
    """
    inside = (attention * coverage).sum(-1) / attention.sum(-1)
    return torch.where(coverage.sum(-1) > 0, inside, torch.nan)


def mass_expected_by_chance(coverage: Float[Tensor, "*batch patch"]) -> Float[Tensor, "*batch"]:
    """Expected value for uniform attention: the region's share of the square."""
    area = coverage.mean(-1)
    return torch.where(area > 0, area, torch.nan)


def pointing_hit(
    attention: Float[Tensor, "*batch patch"], coverage: Float[Tensor, "*batch patch"]
) -> Float[Tensor, "*batch"]:
    """Pointing game (Zhang et al. 2016): 1 if the cell with the highest attention overlaps the region, else 0.

    Of several highest cells, the first in row-major order is used.
    """
    highest = attention.argmax(-1, keepdim=True)
    hit = (coverage.gather(-1, highest).squeeze(-1) > 0).to(attention.dtype)
    return torch.where(coverage.sum(-1) > 0, hit, torch.nan)


def hits_expected_by_chance(coverage: Float[Tensor, "*batch patch"]) -> Float[Tensor, "*batch"]:
    """Probability that a random cell overlaps the region."""
    overlapping = (coverage > 0).float().mean(-1)
    return torch.where(overlapping > 0, overlapping, torch.nan)


def energy_cells(attention: Float[Tensor, "*batch patch"]) -> Bool[Tensor, "*batch patch"]:
    """The smallest set of cells with at least half of the attention (energy thresholding: Cao et al. 2015).

    Of equal cells, the first in row-major order are selected.
    """
    ordered, order = attention.double().sort(dim=-1, descending=True, stable=True)
    before = ordered.cumsum(-1) - ordered
    needed = before < (ENERGY_SHARE - 1e-9) * ordered.sum(-1, keepdim=True)
    return torch.zeros_like(needed).scatter(-1, order, needed)


def energy_iou(
    attention: Float[Tensor, "*batch patch"], coverage: Float[Tensor, "*batch patch"]
) -> Float[Tensor, "*batch"]:
    """Intersection over union, by area, of the region and the smallest set of cells with half of the attention."""
    cells = energy_cells(attention).to(coverage.dtype)
    shared = (cells * coverage).sum(-1)
    iou = shared / (cells.sum(-1) + coverage.sum(-1) - shared)
    return torch.where((coverage.sum(-1) > 0) & (attention.sum(-1) > 0), iou, torch.nan)


def energy_iou_expected_by_chance(coverage: Float[Tensor, "*batch patch"]) -> Float[Tensor, "*batch"]:
    """Expected IoU for uniform attention with random ties: the mean IoU with N/2 cells drawn without replacement.

    E[X / (T - X)], with X the shared area and T the sum of both areas, by its second-order expansion at the mean of X;
    exact if all cells have equal coverage, otherwise within 1 % of the true mean on students' grids.
    """
    covered = coverage.double()
    patches = covered.shape[-1]
    drawn = math.ceil(ENERGY_SHARE * patches)
    total = drawn + covered.sum(-1)
    mean = drawn * covered.mean(-1)
    variance = drawn * (patches - drawn) / max(patches - 1, 1) * covered.var(-1, correction=0)
    iou = mean / (total - mean) + variance * total / (total - mean) ** 3
    return torch.where(covered.sum(-1) > 0, iou, torch.nan).to(coverage.dtype)


def cosine_agreement(first: Float[Tensor, "patch patch"], second: Float[Tensor, "patch patch"]) -> Float[Tensor, ""]:
    """Pearson correlation of the off-diagonal entries of two cosine matrices S (Eq. 3), in [-1, 1].

    Unlike the mean squared error of Eq. 4, invariant to scale and offset of the similarities; nan if one matrix
    is constant off its diagonal.
    """
    off_diagonal = ~torch.eye(first.shape[0], dtype=torch.bool, device=first.device)
    pair = torch.stack([first[off_diagonal], second[off_diagonal]]).double()
    centered = pair - pair.mean(dim=1, keepdim=True)
    spread = centered.norm(dim=1)
    if bool((spread <= math.sqrt(pair.shape[1]) * 1e-12).any()):
        return torch.tensor(torch.nan, dtype=torch.float32)
    correlation: Tensor = centered[0] @ centered[1] / (spread[0] * spread[1])
    return correlation.float()
