"""Where a student looks, and how alike two sets of patch features are: pure functions on the patch grid.

`coverage` says for each cell which fraction of its area the annotated region covers, on the same square as the
student's image. Measures over a region that covers nothing, and shares of an attention map without mass, are nan.
"""

import math

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from ...teacher_cache.geometry import PatchGrid


def mask_coverage(mask: Integer[Tensor, "side side"], grid: PatchGrid) -> Float[Tensor, " patch"]:
    """Fraction of each cell's area that a mask (non-zero inside) covers, on the student's square.

    Exact for any side: a pixel that a cell border cuts counts in proportion.
    """
    inside = (mask != 0).double()
    rows = _overlap(mask.shape[0], grid.rows)
    columns = _overlap(mask.shape[1], grid.columns)
    return (rows @ inside @ columns.T).flatten().float()


def _overlap(pixels: int, cells: int) -> Float[Tensor, "cell pixel"]:
    """How much of each cell, along one axis, each pixel takes up; rows sum to 1."""
    pixel = torch.arange(pixels, dtype=torch.float64) / pixels
    cell = torch.arange(cells, dtype=torch.float64) / cells
    ends = torch.minimum((cell + 1 / cells)[:, None], (pixel + 1 / pixels)[None, :])
    starts = torch.maximum(cell[:, None], pixel[None, :])
    return (ends - starts).clamp(min=0) * cells


def attention_mass_inside(
    attention: Float[Tensor, "*batch patch"], coverage: Float[Tensor, "*batch patch"]
) -> Float[Tensor, "*batch"]:
    """Share of the attention that falls into the region, each cell's spread evenly over its area, in [0, 1]."""
    inside = (attention * coverage).sum(-1) / attention.sum(-1)
    return torch.where(coverage.sum(-1) > 0, inside, torch.nan)


def mass_expected_by_chance(coverage: Float[Tensor, "*batch patch"]) -> Float[Tensor, "*batch"]:
    """What uniform attention puts inside: the region's share of the square."""
    area = coverage.mean(-1)
    return torch.where(area > 0, area, torch.nan)


def pointing_hit(
    attention: Float[Tensor, "*batch patch"], coverage: Float[Tensor, "*batch patch"]
) -> Float[Tensor, "*batch"]:
    """Pointing game (Zhang et al. 2016): 1 where the cell of highest attention overlaps the region, else 0.

    Of several highest cells the first, row-major, points.
    """
    highest = attention.argmax(-1, keepdim=True)
    hit = (coverage.gather(-1, highest).squeeze(-1) > 0).to(attention.dtype)
    return torch.where(coverage.sum(-1) > 0, hit, torch.nan)


def hits_expected_by_chance(coverage: Float[Tensor, "*batch patch"]) -> Float[Tensor, "*batch"]:
    """How often a cell drawn at random overlaps the region."""
    overlapping = (coverage > 0).float().mean(-1)
    return torch.where(overlapping > 0, overlapping, torch.nan)


def cosine_agreement(first: Float[Tensor, "patch patch"], second: Float[Tensor, "patch patch"]) -> Float[Tensor, ""]:
    """Pearson correlation of the off-diagonal entries of two cosine matrices S (Eq. 3), in [-1, 1].

    Blind to scale and offset of the similarities, which the mean squared gap of Eq. 4 is not; nan where one matrix
    is constant off its diagonal.
    """
    off_diagonal = ~torch.eye(first.shape[0], dtype=torch.bool, device=first.device)
    pair = torch.stack([first[off_diagonal], second[off_diagonal]]).double()
    centred = pair - pair.mean(dim=1, keepdim=True)
    spread = centred.norm(dim=1)
    if bool((spread <= math.sqrt(pair.shape[1]) * 1e-12).any()):
        return torch.tensor(torch.nan, dtype=torch.float32)
    correlation: Tensor = centred[0] @ centred[1] / (spread[0] * spread[1])
    return correlation.float()
