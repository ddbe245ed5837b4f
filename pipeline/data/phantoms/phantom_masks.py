"""Exact masks of phantoms as files.

A phantom has two PNG mask files: `NAME.organs.png`, a label map with the values `ORGAN_LABELS` (0 is air), and
`NAME.lesions.png`, 255 inside lesions. Both have the size of the image.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ....errors import InputError
from ..regions import Region
from .phantom import ORGAN_LABELS, BoolMask, Phantom


@dataclass(frozen=True, kw_only=True, slots=True)
class PhantomMasks:
    """Masks of one phantom, [H, W] each."""

    organs: dict[str, BoolMask]
    """Visible part of each organ that the phantom has; disjoint."""
    lesions: BoolMask
    """Union of all lesions; inside organs."""


def save_masks(phantom: Phantom, folder: Path, name: str) -> None:
    """Write the two mask files of phantom `name`."""
    labels = np.zeros(phantom.shape, dtype=np.uint8)
    for organ, mask in phantom.organs.items():
        labels[mask] = ORGAN_LABELS[organ]
    Image.fromarray(labels).save(folder / f"{name}.organs.png")
    Image.fromarray(phantom.lesion_mask.astype(np.uint8) * 255).save(folder / f"{name}.lesions.png")


def regions_of(phantom: Phantom, stem: str) -> tuple[Region, ...]:
    """Regions for a manifest: all lesions as one, then each visible organ; `stem` is the mask files' common path."""
    organs = [
        Region(name=organ, mask=f"{stem}.organs.png", value=ORGAN_LABELS[organ])
        for organ, mask in phantom.organs.items()
        if mask.any()
    ]
    lesions = [Region(name="lesion", mask=f"{stem}.lesions.png")] if phantom.lesions else []
    return (*lesions, *organs)


def load_masks(folder: Path, name: str) -> PhantomMasks:
    """Read the masks of phantom `name`.

    Raises:
        InputError: A file is missing.
    """
    labels, lesions = (_read(folder / f"{name}.{kind}.png") for kind in ("organs", "lesions"))
    organs = {organ: labels == value for organ, value in ORGAN_LABELS.items() if (labels == value).any()}
    return PhantomMasks(organs=organs, lesions=lesions > 0)


def _read(path: Path) -> "np.ndarray[tuple[int, int], np.dtype[np.uint8]]":
    if not path.is_file():
        raise InputError(f"mask {path} is missing; generate the phantoms again with `medalign data phantom`")
    with Image.open(path) as image:
        return np.array(image.convert("L"))
