"""A phantom: pixels, exact masks, and the facts behind its texts."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

BoolMask = NDArray[np.bool_]
FloatMap = NDArray[np.float64]

Modality = Literal["radiograph", "CT"]
Aspect = Literal["1:1", "4:3", "2:1"]
LesionKind = Literal["nodule", "mass", "opacity", "cyst", "calcification"]

ASPECTS: dict[Aspect, tuple[int, int]] = {"1:1": (1, 1), "4:3": (4, 3), "2:1": (2, 1)}
"""Width and height of each aspect ratio."""

ORGAN_LABELS: dict[str, int] = {
    "body": 1,
    "right lung": 2,
    "left lung": 3,
    "heart": 4,
    "spine": 5,
    "liver": 6,
    "spleen": 7,
    "stomach": 8,
    "right kidney": 9,
    "left kidney": 10,
    "aorta": 11,
}
"""Pixel values of a label map; 0 is air. Sides are the patient's, so the right lung is on the left of the image."""

DESCRIBED: dict[Modality, tuple[str, ...]] = {
    "radiograph": ("right lung", "left lung", "heart", "liver"),
    "CT": ("liver", "spleen", "right kidney", "left kidney", "stomach"),
}
"""Organs in captions and questions, in the order of a caption."""

LESION_SITES: dict[Modality, tuple[str, ...]] = {
    "radiograph": ("right lung", "left lung"),
    "CT": ("liver", "spleen", "right kidney", "left kidney"),
}

LESION_KINDS: dict[Modality, tuple[LesionKind, ...]] = {
    "radiograph": ("nodule", "mass", "opacity"),
    "CT": ("cyst", "mass", "calcification"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Lesion:
    """One lesion, all of it inside one organ."""

    mask: BoolMask
    """[H, W]; pixels with at least half of the lesion's contrast."""
    kind: LesionKind
    organ: str
    radius: float
    """Drawn radius in pixels."""
    contrast: float
    """Signed difference from the organ, in gray levels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OrganLook:
    """The appearance of an organ, in words."""

    brightness: Literal["dark", "bright"]
    texture: Literal["smooth", "coarse"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Phantom:
    """One synthetic image and the facts about it."""

    pixels: NDArray[np.uint8]
    """[H, W] gray levels."""
    organs: dict[str, BoolMask]
    """Visible part of each organ, [H, W]; disjoint. Names and label values are `ORGAN_LABELS`."""
    looks: dict[str, OrganLook]
    """The appearance of each organ in `DESCRIBED`."""
    lesions: tuple[Lesion, ...]
    """None, one, or two of the same kind in the same organ."""
    modality: Modality
    aspect: Aspect
    enlarged_heart: bool
    """Cardiothoracic ratio above 0.5; always False for CT."""

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        height, width = self.pixels.shape
        return height, width

    @property
    def lesion_mask(self) -> BoolMask:
        """Union of all lesions, [H, W]."""
        union = np.zeros(self.shape, dtype=np.bool_)
        for lesion in self.lesions:
            union |= lesion.mask
        return union
