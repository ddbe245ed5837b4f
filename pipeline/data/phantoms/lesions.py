"""Lesions: their position, appearance and masks."""

from dataclasses import dataclass

import numpy as np

from .phantom import BoolMask, FloatMap, LesionKind
from .shapes import coverage, grain

TRIES = 64
"""Random centers to try before taking the best one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LesionStyle:
    """How one kind of lesion is drawn. Ranges are sampled uniformly."""

    radius: tuple[float, float]
    """In 1/96 of the image's height."""
    contrast: tuple[float, float]
    """Gray levels added to the organ."""
    softness: float
    """Width of the border, as a fraction of the radius."""
    wobble: float
    """How irregular the outline is; 0 is a disc."""
    grain: float
    """Fraction of the contrast that varies inside the lesion."""


STYLES: dict[LesionKind, LesionStyle] = {
    "nodule": LesionStyle(radius=(4.0, 6.5), contrast=(50, 85), softness=0.25, wobble=0.02, grain=0.03),
    "mass": LesionStyle(radius=(8.5, 12.5), contrast=(55, 85), softness=0.25, wobble=0.16, grain=0.18),
    "opacity": LesionStyle(radius=(10.5, 16.0), contrast=(40, 62), softness=1.2, wobble=0.2, grain=0.3),
    "cyst": LesionStyle(radius=(5.0, 9.0), contrast=(-95, -65), softness=0.2, wobble=0.01, grain=0.0),
    "calcification": LesionStyle(radius=(3.2, 5.0), contrast=(85, 120), softness=0.3, wobble=0.1, grain=0.05),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class PlacedLesion:
    """Contrast and mask of one lesion."""

    paint: FloatMap
    """Gray levels to add, [H, W]; zero outside the organ."""
    mask: BoolMask
    radius: float
    contrast: float


def place_lesion(rng: np.random.Generator, kind: LesionKind, free: BoolMask) -> PlacedLesion:
    """Draw one lesion of `kind` inside `free`, a non-empty part of one organ.

    The lesion is shrunk if the organ is too narrow for it.
    """
    style = STYLES[kind]
    height = free.shape[0]
    roomy = float(np.sqrt(free.sum() / np.pi)) * 0.62
    radius = min(rng.uniform(*style.radius) * height / 96.0, max(2.5, roomy))
    contrast = rng.uniform(*style.contrast)
    row, column = _roomiest_of_random(rng, free, radius)
    rows, columns = np.indices(free.shape)
    across, down = columns - column, rows - row
    bearing = np.arctan2(down, across)
    stretch = rng.uniform(0.88, 1.12)
    border = np.ones(free.shape)
    for order in (2, 3, 5):
        size, phase = rng.normal(0.0, style.wobble / order**0.5), rng.uniform(0.0, 2 * np.pi)
        border += size * np.cos(order * bearing + phase)
    field = border * radius - np.hypot(across * stretch, down / stretch)
    share = coverage(field, max(1.0, style.softness * radius)) * free
    uneven = 1.0 + style.grain * np.clip(grain(rng, free.shape, 4.0), -2.0, 2.0)
    return PlacedLesion(paint=share * contrast * uneven, mask=(share >= 0.5) & free, radius=radius, contrast=contrast)


def _roomiest_of_random(rng: np.random.Generator, free: BoolMask, radius: float) -> tuple[int, int]:
    """A random pixel whose surrounding square of half side `radius` is inside `free`, or the best one tried."""
    candidates = np.argwhere(free)
    reach = max(1, round(radius * 0.85))
    sums = np.pad(np.pad(free, reach).astype(np.int64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    picks = candidates[rng.integers(0, len(candidates), TRIES)]
    top, left = picks[:, 0], picks[:, 1]
    side = 2 * reach + 1
    inside = sums[top + side, left + side] - sums[top, left + side] - sums[top + side, left] + sums[top, left]
    share = inside / side**2
    fitting = np.flatnonzero(share > 0.97)
    best = int(fitting[0]) if len(fitting) else int(share.argmax())
    return int(top[best]), int(left[best])
