"""Pixels of overlays: an image, with the colors of the maps over it."""

import io
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from PIL import Image

Pixels = np.ndarray[Any, np.dtype[np.uint8]]

_HEAT: Final = LinearSegmentedColormap.from_list(
    "heat", [(0.35, 0.0, 0.0, 0.0), (0.75, 0.15, 0.0, 0.45), (1.0, 0.6, 0.0, 0.65), (1.0, 1.0, 0.6, 0.8)]
)
"""From transparent to light: attention is brighter than the gray image below it, also in grayscale."""


def panel_pixels(row: Mapping[str, Any], size: tuple[int, int], limits: tuple[float, float]) -> Pixels:
    """The image of a panel in `size` (width, height), with its maps, as [height, width, 3].

    Args:
        row: The panel's row in the table of a figure.
        size: Width and height, in pixels.
        limits: The values of the first and the last color.
    """
    pixels = _resized(row["image"], size)
    for view in row["views"]:
        pixels = _with_map(pixels, view, (size[0] / row["width"], size[1] / row["height"]), limits)
    return pixels


@lru_cache(maxsize=8)
def _resized(image: bytes, size: tuple[int, int]) -> Pixels:
    """An encoded image in `size`; the panels of a figure often show the same one."""
    with Image.open(io.BytesIO(image)) as picture:
        return np.asarray(picture.convert("RGB").resize(size, Image.Resampling.LANCZOS))


def color_range(row: Mapping[str, Any], settings: Mapping[str, Any]) -> tuple[float, float]:
    """The values of the first and the last color of a panel."""
    values = np.array([value for view in row["views"] for value in view["values"]], dtype=np.float32)
    finite = values[np.isfinite(values)]
    if not len(finite):
        return 0.0, 1.0
    return float(finite.min()), float(np.quantile(finite, settings.get("saturation", 1.0)))


def heat_colors(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Red, green, blue and opacity of values, from 0 to 1 [..., 4]; values that are not finite are transparent."""
    span = high - low if high > low else 1.0
    colors: np.ndarray = _HEAT((np.nan_to_num(values, nan=low) - low) / span)
    colors[~np.isfinite(values), 3] = 0
    return colors


def _with_map(
    pixels: Pixels, view: Mapping[str, Any], scale: tuple[float, float], limits: tuple[float, float]
) -> Pixels:
    """The pixels with a map over them; each takes the color of the cell at its center."""
    x, y, width, height = view["box"]
    down = _cells(pixels.shape[0], scale[1], y, height, view["rows"])
    across = _cells(pixels.shape[1], scale[0], x, width, view["columns"])
    values = np.full((view["rows"] + 1, view["columns"] + 1), np.nan, dtype=np.float32)  # the last ones are outside
    values[:-1, :-1] = np.array(view["values"], dtype=np.float32).reshape(view["rows"], view["columns"])
    colors = heat_colors(values, *limits)[down[:, None], across[None, :]]
    mixed = pixels * (1 - colors[..., 3:]) + 255 * colors[..., :3] * colors[..., 3:]
    rounded: Pixels = mixed.round().astype(np.uint8)
    return rounded


def _cells(pixels: int, scale: float, start: float, length: float, count: int) -> np.ndarray:
    """The cell along one axis at the center of each pixel; -1 outside of the view."""
    centers = (np.arange(pixels) + 0.5) / scale
    cells = np.floor((centers - start) / length * count).astype(int)
    return np.where((cells >= 0) & (cells < count), cells, -1)
