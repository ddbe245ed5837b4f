"""The two anatomies: a frontal chest radiograph and an axial slice through the upper abdomen.

Each builds a list of painted organs, back to front. Gray levels follow a clinical display: dense tissue is bright in
the radiograph, and the slice shows a soft-tissue window.
"""

from dataclasses import dataclass

import numpy as np

from .phantom import Aspect, FloatMap
from .shapes import Canvas, blob

BODY_WIDTH: dict[str, dict[Aspect, float]] = {
    "radiograph": {"1:1": 0.95, "4:3": 1.15, "2:1": 1.35},
    "CT": {"1:1": 0.93, "4:3": 1.22, "2:1": 1.6},
}
"""Half the width of the body, in units of half the image height."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One painted part: a shape, its mean gray level, and the organ label of its pixels."""

    field: FloatMap
    level: float
    organ: str
    softness: float = 1.2
    """Width of the painted border in pixels."""
    strength: float = 1.0
    """Opacity: the fraction of the part's gray level in the result."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Anatomy:
    """Parts from back to front, and gray levels that are added on top (ribs, vertebral edges)."""

    parts: tuple[Part, ...]
    overlay: FloatMap


def chest(canvas: Canvas, rng: np.random.Generator, enlarged_heart: bool) -> Anatomy:
    """Torso, two lungs above their diaphragm domes, heart, spine, liver and a gas bubble in the stomach."""
    x, y, scale = canvas.x, canvas.y, canvas.pixels_per_y
    torso = (1.0 - (np.abs(x) / 0.97) ** 4 - (np.abs(y - 0.42) / 1.27) ** 4) * scale * 0.4
    neck = (0.24 + 0.25 * np.clip(y + 0.9, 0, None) - np.abs(x)) * canvas.pixels_per_x
    torso = np.where(y < 0.3, np.maximum(torso, neck), torso)
    domes = rng.uniform(0.5, 0.6)
    right_dome = domes - 0.16 * np.cos(np.clip((x + 0.42) / 0.42, -1, 1) * np.pi / 2) + 0.1
    left_dome = domes - 0.13 * np.cos(np.clip((x - 0.44) / 0.42, -1, 1) * np.pi / 2) + 0.16
    right = np.minimum(_lung(canvas, rng, -0.44), (right_dome - y) * scale)
    left = np.minimum(_lung(canvas, rng, 0.44), (left_dome - y) * scale)
    liver = np.minimum.reduce(
        [(y - right_dome) * scale, (0.14 - 0.25 * (y - 0.5) - x) * canvas.pixels_per_x, torso - 5]
    )
    size = rng.uniform(1.27, 1.45) if enlarged_heart else rng.uniform(0.8, 0.95)
    heart = blob(canvas, (0.05 + 0.09 * size, 0.3), (0.31 * size, 0.27 * size**0.5), rng, angle=0.45, wobble=0.03)
    heart = np.minimum(heart, (left_dome + 0.06 - y) * scale)
    band = 0.075 + 0.012 * np.cos(2 * np.pi * y / 0.16)
    spine = np.minimum((band - np.abs(x)) * canvas.pixels_per_x, torso)
    mediastinum = (0.15 + 0.05 * np.clip(-y - 0.5, 0, None) - np.abs(x - 0.02)) * canvas.pixels_per_x
    stomach = blob(canvas, (0.4, 0.78), (0.17, 0.1), rng)
    parts = (
        Part(field=torso, level=138.0, organ="body", softness=3.0),
        Part(field=right, level=58.0, organ="right lung", softness=2.2),
        Part(field=left, level=62.0, organ="left lung", softness=2.2),
        Part(field=liver, level=176.0, organ="liver", softness=1.8),
        Part(field=np.minimum(stomach, torso - 4), level=92.0, organ="stomach", softness=2.0, strength=0.8),
        Part(field=np.minimum(mediastinum, torso), level=150.0, organ="body", softness=3.0, strength=0.85),
        Part(field=heart, level=160.0, organ="heart", softness=2.0, strength=0.95),
        Part(field=spine, level=196.0, organ="spine", softness=1.5, strength=0.6),
    )
    return Anatomy(parts=parts, overlay=_ribs(canvas, rng) * (torso > 2))


def _lung(canvas: Canvas, rng: np.random.Generator, middle: float) -> FloatMap:
    """A lung around x = `middle`, narrower toward its apex; its base is cut by the caller."""
    narrowing = 1.0 - 0.32 * np.clip(-(canvas.y + 0.05), 0.0, 1.0) ** 1.4
    toward_middle = middle * (1.0 - 0.18 * np.clip(-(canvas.y + 0.1), 0.0, 1.0))
    squeezed = Canvas(
        x=(canvas.x - toward_middle) / narrowing,
        y=canvas.y,
        pixels_per_x=canvas.pixels_per_x,
        pixels_per_y=canvas.pixels_per_y,
    )
    width = rng.uniform(0.31, 0.35)
    return blob(squeezed, (0.0, 0.02), (width, rng.uniform(0.72, 0.78)), rng, wobble=0.03)


def _ribs(canvas: Canvas, rng: np.random.Generator) -> FloatMap:
    """Gray levels that ribs and clavicles add, [H, W]."""
    x, y = canvas.x, canvas.y
    spacing, start = rng.uniform(0.19, 0.22), rng.uniform(-0.75, -0.66)
    added = np.zeros_like(x)
    out = np.clip((np.abs(x) - 0.08) / 0.8, 0.0, None)
    for number in range(8):
        line = start + number * spacing + 0.5 * out**1.6 - 0.12 * out
        added += 17.0 * np.exp(-(((y - line) / 0.034) ** 2)) * (np.abs(x) > 0.08) * (np.abs(x) < 0.8)
    for side in (-1.0, 1.0):
        line = -0.62 - 0.2 * np.clip(side * x, 0.0, 1.0)
        reach = (side * x > 0.08) & (side * x < 0.75)
        added += 30.0 * np.exp(-(((y - line) / 0.035) ** 2)) * reach
    return added


def abdomen(canvas: Canvas, rng: np.random.Generator) -> Anatomy:
    """Skin, fat and muscle around liver, spleen, stomach, two kidneys, aorta, spine and some bowel."""
    depth = rng.uniform(0.8, 0.9)
    skin = blob(canvas, (0.0, 0.0), (0.96, depth), rng, wobble=0.02)
    across, down = canvas.x / 0.96, canvas.y / depth
    radius = np.hypot(across, down)
    thickness = min(0.96 * canvas.pixels_per_x, depth * canvas.pixels_per_y)
    fat = rng.uniform(0.84, 0.91)
    wall, cavity = (fat - radius) * thickness, (fat - 0.075 - radius) * thickness
    inside = cavity - 0.5
    liver = blob(canvas, (-0.4, -0.17), (0.44, 0.46), rng, angle=-0.35, wobble=0.07)
    spleen = blob(canvas, (0.6, 0.14), (0.17, 0.34), rng, angle=0.3, wobble=0.05)
    stomach = blob(canvas, (0.3, -0.32), (0.27, 0.24), rng, angle=0.3, wobble=0.07)
    gas = np.minimum(stomach - 1.5, (-0.36 - canvas.y) * canvas.pixels_per_y)
    parts = [
        Part(field=skin, level=62.0, organ="body"),
        Part(field=wall, level=116.0, organ="body"),
        Part(field=cavity, level=68.0, organ="body"),
        *_bowel(canvas, rng, inside),
        *_back_muscles(canvas, rng, wall),
        Part(field=np.minimum(stomach, inside), level=100.0, organ="stomach"),
        Part(field=np.minimum(gas, inside), level=22.0, organ="stomach"),
        Part(field=np.minimum(spleen, inside), level=154.0, organ="spleen"),
        Part(field=np.minimum(liver, inside), level=136.0, organ="liver"),
        *_kidney(canvas, rng, -0.42, "right kidney", inside),
        *_kidney(canvas, rng, 0.4, "left kidney", inside),
        *_spine(canvas, rng),
        Part(field=blob(canvas, (0.06, 0.13), (0.075, 0.085), rng), level=200.0, organ="aorta"),
        Part(field=blob(canvas, (-0.11, 0.16), (0.075, 0.07), rng), level=158.0, organ="body"),
    ]
    return Anatomy(parts=tuple(parts), overlay=np.zeros(canvas.shape))


def _kidney(canvas: Canvas, rng: np.random.Generator, middle: float, organ: str, inside: FloatMap) -> tuple[Part, Part]:
    """A bean with a darker sinus that opens toward the spine."""
    side = np.sign(middle)
    center = (middle + rng.normal(0, 0.015), 0.43 + rng.normal(0, 0.02))
    whole = blob(canvas, center, (0.155, 0.22), rng, angle=0.25 * side, wobble=0.03)
    notch = blob(canvas, (center[0] - 0.15 * side, center[1] - 0.02), (0.075, 0.07), rng, wobble=0.0)
    bean = np.minimum(np.minimum(whole, -notch), inside)
    sinus = blob(canvas, (center[0] - 0.06 * side, center[1]), (0.05, 0.08), rng)
    return (
        Part(field=bean, level=176.0, organ=organ),
        Part(field=np.minimum(sinus, bean), level=118.0, organ=organ, softness=2.0, strength=0.7),
    )


def _spine(canvas: Canvas, rng: np.random.Generator) -> tuple[Part, ...]:
    """Vertebral body, the two laminae around a dark canal, and the spinous process."""
    body = blob(canvas, (0.0, 0.38), (0.15, 0.145), rng, wobble=0.03)
    arch = blob(canvas, (0.0, 0.57), (0.13, 0.1), rng, wobble=0.02)
    process = blob(canvas, (0.0, 0.68), (0.035, 0.13), rng, wobble=0.02)
    canal = blob(canvas, (0.0, 0.55), (0.065, 0.055), rng, wobble=0.02)
    return (
        Part(field=np.maximum(arch, process), level=214.0, organ="spine"),
        Part(field=body, level=206.0, organ="spine"),
        Part(field=canal, level=104.0, organ="spine"),
    )


def _bowel(canvas: Canvas, rng: np.random.Generator, inside: FloatMap) -> list[Part]:
    """A few loops of bowel in the front of the cavity, some with gas."""
    parts = []
    for _ in range(int(rng.integers(3, 7))):
        center = (rng.uniform(-0.35, 0.55), rng.uniform(-0.5, 0.12))
        radii = (rng.uniform(0.06, 0.12), rng.uniform(0.06, 0.1))
        loop = np.minimum(blob(canvas, center, radii, rng, wobble=0.1), inside)
        parts.append(Part(field=loop, level=rng.uniform(92.0, 118.0), organ="body"))
        if rng.random() < 0.4:
            gas = np.minimum(blob(canvas, center, (radii[0] / 2, radii[1] / 2), rng), inside)
            parts.append(Part(field=gas, level=25.0, organ="body"))
    return parts


def _back_muscles(canvas: Canvas, rng: np.random.Generator, wall: FloatMap) -> list[Part]:
    """The muscles beside the spine."""
    return [
        Part(field=np.minimum(blob(canvas, (side * 0.21, 0.68), (0.16, 0.13), rng), wall), level=118.0, organ="body")
        for side in (-1.0, 1.0)
    ]
