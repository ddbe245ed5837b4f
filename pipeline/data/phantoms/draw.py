"""Draw one phantom: anatomy, organ appearance, lesions, then the imaging chain (blur, noise, gain)."""

import numpy as np

from .anatomy import BODY_WIDTH, Anatomy, abdomen, chest
from .lesions import place_lesion
from .phantom import (
    ASPECTS,
    DESCRIBED,
    LESION_KINDS,
    LESION_SITES,
    ORGAN_LABELS,
    Aspect,
    BoolMask,
    FloatMap,
    Lesion,
    Modality,
    OrganLook,
    Phantom,
)
from .shapes import blurred, body_canvas, coverage, grain

NORMAL_SHARE = 0.25
"""Fraction of phantoms without a lesion."""
PAIR_SHARE = 0.15
"""Fraction of phantoms with two lesions."""
BRIGHTNESS_STEP = 17.0
"""Gray levels by which a bright organ exceeds, and a dark one falls below, its usual level."""
TEXTURE_DEPTH = {"smooth": 2.5, "coarse": 15.0}
"""Standard deviation of an organ's texture, in gray levels."""
MIRROR = 250.0
"""The other look has the gray level `MIRROR - level` where the usual one has `level`."""
SHIFTED_EXPOSURE = (15.0, 40.0)
"""Gray levels by which a phantom with a shift of 1 is darker or lighter."""
SHIFTED_NOISE = 0.5
"""Fraction by which a shift of 1 raises the noise."""


def draw_phantom(seed: int, index: int, size: int = 96, shift: float = 0.0) -> Phantom:
    """Draw phantom number `index` of the series `seed`.

    Deterministic: the same arguments give the same phantom, regardless of which others are drawn before.
    The height is `size` times 0.85 to 1.25, a multiple of 3, so that all aspect ratios are exact.

    `shift` is the share of another look, as of another scanner: gray levels of the anatomy are mixed with mirrored
    ones, the image is darker or lighter, and has more noise. Shapes, looks of organs, lesions and texts are those of
    the phantom without a shift; 0 changes nothing.

    Raises:
        ValueError: `size` is below 32, too small for the anatomy, or `shift` is not in [0, 1].
    """
    if size < 32:
        raise ValueError(f"size must be at least 32 pixels, got {size}")
    if not 0.0 <= shift <= 1.0:
        raise ValueError(f"shift must be in [0, 1], got {shift}")
    rng = np.random.default_rng([seed, index])
    modality: Modality = "radiograph" if rng.random() < 0.5 else "CT"
    aspect: Aspect = list(ASPECTS)[int(rng.integers(len(ASPECTS)))]
    across, down = ASPECTS[aspect]
    height = 3 * round(size * rng.uniform(0.85, 1.25) / 3)
    canvas = body_canvas(rng, height, height * across // down, BODY_WIDTH[modality][aspect])
    enlarged = bool(modality == "radiograph" and rng.random() < 0.5)
    anatomy = chest(canvas, rng, enlarged) if modality == "radiograph" else abdomen(canvas, rng)
    organs = _visible(anatomy)
    looks = {organ: _random_look(rng) for organ in DESCRIBED[modality]}
    image = _paint(anatomy, organs, looks, rng, shift)
    lesions, image = _add_lesions(rng, image, organs, modality)
    return Phantom(
        pixels=_expose(rng, image + _shifted_exposure(seed, index, shift), modality, 1.0 + SHIFTED_NOISE * shift),
        organs=organs,
        looks=looks,
        lesions=lesions,
        modality=modality,
        aspect=aspect,
        enlarged_heart=enlarged,
    )


def _visible(anatomy: Anatomy) -> dict[str, BoolMask]:
    """Label every pixel with the frontmost part; organs without a pixel are omitted."""
    labels = np.zeros(anatomy.overlay.shape, dtype=np.uint8)
    for part in anatomy.parts:
        labels[part.field > 0] = ORGAN_LABELS[part.organ]
    masks = {organ: labels == value for organ, value in ORGAN_LABELS.items()}
    return {organ: mask for organ, mask in masks.items() if mask.any()}


def _random_look(rng: np.random.Generator) -> OrganLook:
    return OrganLook(
        brightness="bright" if rng.random() < 0.5 else "dark",
        texture="coarse" if rng.random() < 0.5 else "smooth",
    )


def _shifted_exposure(seed: int, index: int, shift: float) -> float:
    """Gray levels to add to a phantom with a shift; from a generator of its own, so that the drawing stays the same."""
    rng = np.random.default_rng([seed, index, 2])
    return float(shift * rng.choice((-1.0, 1.0)) * rng.uniform(*SHIFTED_EXPOSURE))


def _paint(
    anatomy: Anatomy,
    organs: dict[str, BoolMask],
    looks: dict[str, OrganLook],
    rng: np.random.Generator,
    shift: float,
) -> FloatMap:
    """Gray levels of the healthy anatomy, [H, W]."""
    shape = anatomy.overlay.shape
    image = np.full(shape, 6.0)
    for part in anatomy.parts:
        look = looks.get(part.organ)
        step = 0.0 if look is None else BRIGHTNESS_STEP * (1.0 if look.brightness == "bright" else -1.0)
        share = coverage(part.field, part.softness) * part.strength
        level = (1.0 - shift) * part.level + shift * (MIRROR - part.level)
        image += share * (level + step + rng.normal(0.0, 3.0) - image)
    tissue = grain(rng, shape, 3.5)
    for organ, mask in organs.items():
        depth = TEXTURE_DEPTH[looks[organ].texture] if organ in looks else 4.0
        image += mask * depth * tissue
    return image + anatomy.overlay


def _add_lesions(
    rng: np.random.Generator, image: FloatMap, organs: dict[str, BoolMask], modality: Modality
) -> tuple[tuple[Lesion, ...], FloatMap]:
    """Draw none, one or two lesions of one kind in one organ."""
    kinds = LESION_KINDS[modality]
    organ = LESION_SITES[modality][int(rng.integers(len(LESION_SITES[modality])))]
    kind = kinds[int(rng.integers(len(kinds)))]
    draw = rng.random()
    count = 0 if draw < NORMAL_SHARE else 2 if draw > 1.0 - PAIR_SHARE else 1
    free = organs[organ].copy()
    lesions: list[Lesion] = []
    for _ in range(count):
        if not free.any():  # a small organ that the first lesion fills
            break
        placed = place_lesion(rng, kind, free)
        image = image + placed.paint
        free &= ~_grown(placed.mask)
        lesions.append(Lesion(mask=placed.mask, kind=kind, organ=organ, radius=placed.radius, contrast=placed.contrast))
    return tuple(lesions), image


def _grown(mask: BoolMask, pixels: int = 3) -> BoolMask:
    """The mask dilated by `pixels`, so that a second lesion does not touch the first."""
    grown = mask.copy()
    for shift in range(1, pixels + 1):
        for axis in (0, 1):
            grown |= np.roll(mask, shift, axis) | np.roll(mask, -shift, axis)
    return grown


def _expose(
    rng: np.random.Generator, image: FloatMap, modality: Modality, noise_factor: float
) -> "np.ndarray[tuple[int, int], np.dtype[np.uint8]]":
    """Blur, uneven exposure, noise and display gain of the imaging chain."""
    shape = image.shape
    image = blurred(image, rng.uniform(0.45, 0.75))
    if modality == "radiograph":
        image = image * (1.0 + 0.04 * grain(rng, shape, max(shape) / 2.5))
        noise = blurred(rng.normal(0.0, 9.0 * noise_factor, shape), 0.6)
    else:
        noise = blurred(rng.normal(0.0, 14.0 * noise_factor, shape), 0.7)
    image = (image + noise) * rng.uniform(0.95, 1.05) + rng.uniform(-5.0, 5.0)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)
