"""Flaws that one row shows on its own: values that no teacher computes for an image.

Pure functions of a row's decoded targets; N patches on the store's grid. Limits are far from what sound rows have, so a
flaw is not a matter of chance.
"""

import math
from dataclasses import dataclass
from typing import Final, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ....teacher_cache.geometry.cosines import cosine_matrix
from ....teacher_cache.geometry.patch_grid import PatchGrid
from ....teacher_cache.store import TeacherTarget

FlawKind = Literal[
    "unreadable", "zero", "constant", "saturated", "impossible attention", "index", "equal rows", "far from all others"
]

_ALIKE: Final = 0.999
"""All patches of a constant row have larger cosines."""
_NO_COSINE: Final = 2e-3
"""Cosines of a zero patch are smaller, also as a Gram profile rounds them."""
_TIED: Final = 0.01
"""Share of a row's values at its largest magnitude from which they are saturated."""
_FEWEST_TIED: Final = 16
_CELL_MASS: Final = 0.99
"""Share of the attention that is in one cell of the teacher's grid."""
_UNIFORM: Final = 1e-3
"""Relative range below which attention is uniform."""


@dataclass(frozen=True, slots=True)
class Flaw:
    """What is odd about a row."""

    kind: FlawKind
    detail: str


def similarity_of(target: TeacherTarget) -> Float[Tensor, "patch patch"]:
    """S (Eq. 3) of a row of any profile."""
    if target.S is not None:
        return target.S
    assert target.E_v is not None
    return cosine_matrix(target.E_v[None])[0]


def find_flaws(target: TeacherTarget, S: Float[Tensor, "patch patch"], native: PatchGrid) -> list[Flaw]:
    """The flaws of a row with cosines `S`; `native` is the teacher's grid."""
    patches = len(S)
    zero = _zero_patches(target, S)
    flaws = [Flaw("zero", f"{zero} of {patches} patches of E_v are zero")] if zero else []
    if not flaws and patches > 1 and float(S.min()) > _ALIKE:
        flaws.append(Flaw("constant", f"all patches are alike: the smallest cosine is {float(S.min()):.5f}"))
    if not flaws and target.E_v is not None and (tied := _tied(target.E_v)):
        share = tied / target.E_v.numel()
        flaws.append(Flaw("saturated", f"{100 * share:.0f} % of E_v has the largest magnitude of the row"))
    return flaws + _attention_flaws(target.E_a, native)


def attention_entropy(E_a: Float[Tensor, "patch"]) -> float:
    """Entropy of E_a divided by its sum, in nats; nan if it has no positive sum."""
    total = float(E_a.double().sum())
    if not total > 0 or float(E_a.min()) < 0:
        return math.nan
    shares = E_a.double() / total
    return abs(float(torch.special.xlogy(shares, shares).sum()))  # without the sign of zero


def _zero_patches(target: TeacherTarget, S: Float[Tensor, "patch patch"]) -> int:
    if target.E_v is not None:
        return int((target.E_v == 0).all(dim=1).sum())
    others = S - torch.diag(S.diag())
    return int((others.abs().amax(dim=1) < _NO_COSINE).sum()) if len(S) > 1 else 0


def _tied(E_v: Float[Tensor, "patch channel"]) -> int:
    """Number of values with the largest magnitude; 0 if they are few."""
    sizes = E_v.abs()
    tied = int((sizes >= sizes.max() * (1 - 1e-3)).sum())
    return tied if tied >= max(_FEWEST_TIED, _TIED * E_v.numel()) else 0


def _attention_flaws(E_a: Float[Tensor, "patch"], native: PatchGrid) -> list[Flaw]:
    low, high, total = float(E_a.min()), float(E_a.max()), float(E_a.double().sum())
    if low < 0:
        return [Flaw("impossible attention", f"E_a has negative values; the lowest is {low:.3g}")]
    if high == 0:
        return [Flaw("impossible attention", "E_a is zero")]
    if len(E_a) == 1:
        return []
    if high - low < _UNIFORM * high:
        return [Flaw("impossible attention", "E_a is the same in all cells")]
    spread = 1 if native.patches == len(E_a) else math.ceil(4 * len(E_a) / native.patches)
    if spread < len(E_a) and float(E_a.double().topk(spread).values.sum()) > _CELL_MASS * total:
        return [Flaw("impossible attention", f"{100 * high / total:.1f} % of E_a is in one cell")]
    tied = int((E_a >= high * (1 - 1e-6)).sum())
    if tied >= max(4, len(E_a) // 10):
        return [Flaw("impossible attention", f"E_a is cut off: {tied} of {len(E_a)} cells have its largest value")]
    return []


def patch_norms(target: TeacherTarget) -> Float[Tensor, "patch"] | None:
    """Norms of the patches; None in a Gram store."""
    return None if target.E_v is None else torch.linalg.vector_norm(target.E_v, dim=1)


def mean_cosine(S: Float[Tensor, "patch patch"]) -> float:
    """Mean cosine of two different patches; nan for a single patch."""
    patches = len(S)
    return float((S.double().sum() - S.double().trace()) / (patches * (patches - 1))) if patches > 1 else math.nan
