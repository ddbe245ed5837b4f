"""What a phantom is: pixels, exact masks, and the facts that its texts are written from."""

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
"""Pixel values of a label map; 0 is air. Sides are the patient's, so the right lung lies on the image's left."""

DESCRIBED: dict[Modality, tuple[str, ...]] = {
    "radiograph": ("right lung", "left lung", "heart", "liver"),
    "CT": ("liver", "spleen", "right kidney", "left kidney", "stomach"),
}
"""Organs that captions and questions speak of, in the order of a caption."""

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
    """[H, W]; where at least half of the lesion's contrast is drawn."""
    kind: LesionKind
    organ: str
    radius: float
    """Drawn radius in pixels."""
    contrast: float
    """Signed difference from the organ in grey levels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OrganLook:
    """The two looks that an organ is drawn with, in words."""

    brightness: Literal["dark", "bright"]
    texture: Literal["smooth", "coarse"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Phantom:
    """One drawn image and everything that is true of it."""

    pixels: NDArray[np.uint8]
    """[H, W] grey levels."""
    organs: dict[str, BoolMask]
    """Visible part of each organ, [H, W]; disjoint. Names and label values are `ORGAN_LABELS`."""
    looks: dict[str, OrganLook]
    """How each organ of `DESCRIBED` looks."""
    lesions: tuple[Lesion, ...]
    """None, one, or two of the same kind in the same organ."""
    modality: Modality
    aspect: Aspect
    enlarged_heart: bool
    """Cardiothoracic ratio above one half; always False in CT."""

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
