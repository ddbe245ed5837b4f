"""Soft shapes and textures, from which anatomies are drawn.

A shape is a field: positive inside, with a slope of about one per pixel near its border, so that `field > 0` is the
exact mask and `coverage(field)` the anti-aliased one.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from .phantom import FloatMap


@dataclass(frozen=True, kw_only=True, slots=True)
class Canvas:
    """Body coordinates of every pixel.

    `y` points down, in units of half the image height. `x` points to the right of the image (the patient's left), in
    units of half the body width. Both are slightly rotated, shifted and scaled relative to the image.
    """

    x: FloatMap
    """[H, W]"""
    y: FloatMap
    """[H, W]"""
    pixels_per_x: float
    pixels_per_y: float

    @property
    def shape(self) -> tuple[int, int]:
        height, width = self.x.shape
        return height, width


def body_canvas(rng: np.random.Generator, height: int, width: int, body_width: float) -> Canvas:
    """A canvas whose body extends `body_width` half heights on each side of the midline, slightly off center."""
    half = height / 2
    rows, columns = np.mgrid[0:height, 0:width]
    across = (columns + 0.5 - width / 2) / half
    down = (rows + 0.5 - height / 2) / half
    angle = rng.normal(0.0, 0.035)
    scale = rng.uniform(0.93, 1.04)
    across = across - rng.uniform(-0.06, 0.06)
    down = down - rng.uniform(-0.05, 0.05)
    x = (np.cos(angle) * across + np.sin(angle) * down) / (scale * body_width)
    y = (np.cos(angle) * down - np.sin(angle) * across) / scale
    return Canvas(x=x, y=y, pixels_per_x=half * scale * body_width, pixels_per_y=half * scale)


def blob(
    canvas: Canvas,
    center: tuple[float, float],
    radii: tuple[float, float],
    rng: np.random.Generator,
    angle: float = 0.0,
    wobble: float = 0.04,
) -> FloatMap:
    """Field of an ellipse in body coordinates; the border varies by about `wobble` times the radius."""
    across = (canvas.x - center[0]) * canvas.pixels_per_x
    down = (canvas.y - center[1]) * canvas.pixels_per_y
    turned_x = (np.cos(angle) * across + np.sin(angle) * down) / (radii[0] * canvas.pixels_per_x)
    turned_y = (np.cos(angle) * down - np.sin(angle) * across) / (radii[1] * canvas.pixels_per_y)
    bearing = np.arctan2(turned_y, turned_x)
    border = np.ones_like(bearing)
    for order in (2, 3, 4, 5):
        size, phase = rng.normal(0.0, wobble / order), rng.uniform(0.0, 2 * np.pi)
        border += size * np.cos(order * bearing + phase)
    thickness = min(radii[0] * canvas.pixels_per_x, radii[1] * canvas.pixels_per_y)
    field: FloatMap = (border - np.hypot(turned_x, turned_y)) * thickness
    return field


def coverage(field: FloatMap, softness: float = 1.0) -> FloatMap:
    """Fraction of each pixel that the shape covers, in [0, 1]; the border is `softness` pixels wide."""
    share: FloatMap = np.clip(field / softness + 0.5, 0.0, 1.0)
    return share


def grain(rng: np.random.Generator, shape: tuple[int, int], scale: float) -> FloatMap:
    """Smooth noise with unit variance and a correlation length of about `scale` pixels, [H, W]."""
    height, width = shape
    rows, columns = max(3, round(height / scale)), max(3, round(width / scale))
    coarse = Image.fromarray(rng.standard_normal((rows, columns)).astype(np.float32))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float64)
    smooth = smooth - smooth.mean()
    result: FloatMap = smooth / max(float(smooth.std()), 1e-6)
    return result


def blurred(values: FloatMap, radius: float) -> FloatMap:
    """Gaussian blur with a standard deviation of `radius` pixels and edge padding (PIL's is only for 8-bit images)."""
    reach = max(1, int(np.ceil(3 * radius)))
    offsets = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * (offsets / radius) ** 2)
    weights /= weights.sum()
    padded = np.pad(values, reach, mode="edge")
    height, width = values.shape
    down = sum(w * padded[reach + o : reach + o + height] for w, o in zip(weights, offsets, strict=True))
    result: FloatMap = sum(w * down[:, reach + o : reach + o + width] for w, o in zip(weights, offsets, strict=True))
    return result
