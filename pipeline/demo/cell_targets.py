"""The content of each cell of a patch grid, as targets for a vision tower: organs, their looks, lesions.

Captions alone teach a tower too, but slowly (docs/decisions.md).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from ...student.metrics.region_attention import region_coverage
from ...teacher_cache.geometry.patch_grid import PatchGrid
from ..data.phantoms.phantom import ORGAN_LABELS, Phantom
from .corpus import NO_PHRASE, SLOTS, Corpus

LOOK_SHARE = 0.35
"""Smallest area of an organ in a cell whose look is a target of that cell."""
LESION_WEIGHT = 4.0
"""Additional weight of cells with a lesion, which are few."""
FULL_LESION = 0.5
"""Area of a cell from which on it counts as filled by a lesion."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CellTargets:
    """P phantoms, N cells, O organs with air, K kinds of lesion with none."""

    organs: Float[Tensor, "phantoms cells organs"]
    """Area of each organ; sums to 1."""
    looks: Int[Tensor, "phantoms cells 2"]
    """Brightness and texture (0 or 1) of the organ that fills most of the cell; NO_PHRASE if it has no look."""
    lesions: Float[Tensor, "phantoms cells kinds"]
    """Probability of each kind; sums to 1."""


class CellHeads(nn.Module):
    """Linear heads for the targets of a cell, from its token."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.organ = nn.Linear(width, len(ORGAN_LABELS) + 1)
        self.look = nn.Linear(width, 2)
        self.lesion = nn.Linear(width, len(SLOTS["lesion"]))

    def loss(
        self, patches: Float[Tensor, "batch cells width"], targets: CellTargets, chosen: Int[Tensor, " batch"]
    ) -> Float[Tensor, ""]:
        """Sum of the cross-entropies of organs, looks and lesions, each a mean over cells."""
        tokens = self.norm(patches)
        organs = -(targets.organs[chosen] * self.organ(tokens).log_softmax(-1)).sum(-1).mean()
        lesions = targets.lesions[chosen]
        weights = 1.0 + LESION_WEIGHT * (lesions[..., 0] < 1)
        kinds = -((lesions * self.lesion(tokens).log_softmax(-1)).sum(-1) * weights).mean()
        looks = targets.looks[chosen]
        seen = looks != NO_PHRASE
        shown = functional.binary_cross_entropy_with_logits(self.look(tokens)[seen], looks[seen].float())
        loss: Tensor = organs + kinds + shown
        return loss


def cell_targets(corpus: Corpus, grid: PatchGrid) -> CellTargets:
    """The targets of all phantoms of a corpus."""
    parts = [_targets(phantom, slots, grid) for phantom, slots in zip(corpus.phantoms, corpus.slots, strict=True)]
    organs, looks, lesions = (torch.stack(part) for part in zip(*parts, strict=True))
    return CellTargets(organs=organs, looks=looks, lesions=lesions)


def _targets(phantom: Phantom, slots: Int[Tensor, " slots"], grid: PatchGrid) -> tuple[Tensor, Tensor, Tensor]:
    filled = dict(zip(SLOTS, slots.tolist(), strict=True))
    organs = torch.zeros(grid.patches, len(ORGAN_LABELS) + 1)
    looks = torch.full((grid.patches, 2), NO_PHRASE)
    for name, mask in phantom.organs.items():
        area = region_coverage(torch.from_numpy(mask), grid)
        organs[:, ORGAN_LABELS[name]] = area
        if name in phantom.looks:
            looks[area > LOOK_SHARE] = torch.tensor([filled[f"{name} brightness"], filled[f"{name} texture"]])
    organs[:, 0] = (1.0 - organs.sum(-1)).clamp(min=0)
    lesions = torch.zeros(grid.patches, len(SLOTS["lesion"]))
    area = region_coverage(torch.from_numpy(phantom.lesion_mask), grid)
    lesions[:, filled["lesion"]] = (area / FULL_LESION).clamp(max=1)
    lesions[:, 0] = 1.0 - lesions[:, 1:].sum(-1)
    return organs, looks, lesions
