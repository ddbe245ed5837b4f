"""Overlays: attention of patches on images, with outlines of annotated regions, as in Figures 2 and 6 of the paper."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure as Canvas
from matplotlib.patches import Rectangle
from PIL import Image

from ....student.inputs.views import ImageLayout
from .figure import Figure
from .style import label, panel_grid, wrapped

KIND = "overlays"
_SIDE: Final = 384
"""Longest side of a stored image, in pixels."""
_QUALITY: Final = 85
PANEL_WIDTH: Final = 2.4
"""In inches."""
_OUTLINE: Final = "#00e5ff"
_HEAT: Final = LinearSegmentedColormap.from_list(
    "heat", [(0.35, 0.0, 0.0, 0.0), (0.75, 0.15, 0.0, 0.45), (1.0, 0.6, 0.0, 0.65), (1.0, 1.0, 0.6, 0.8)]
)
"""From transparent to light: attention is brighter than the gray image below it, also in grayscale."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MapView:
    """Values on a grid of cells that covers a box of the image; a student that sees an image in tiles has several."""

    rows: int
    columns: int
    box: tuple[float, float, float, float]
    """x, y, width, height in pixels of the upright image; a padded square begins outside of it."""
    values: Sequence[float]
    """Row-major from the top left."""


def map_views(layout: ImageLayout, values: Sequence[float] | np.ndarray) -> tuple[MapView, ...]:
    """One value for each of an image's tokens, on the views of the image."""
    return tuple(
        MapView(rows=view.rows, columns=view.columns, box=view.box, values=view.on_grid(values).ravel().tolist())
        for view in layout.views
    )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Outline:
    """An annotated region: a box (x, y, width, height, in pixels) or a mask [height, width]."""

    name: str
    box: tuple[float, float, float, float] | None = None
    mask: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Overlay:
    """One panel: an image, values over it, and outlines."""

    title: str
    image: Image.Image
    """Upright, grayscale or RGB."""
    views: tuple[MapView, ...] = ()
    outlines: tuple[Outline, ...] = ()
    marked: tuple[float, float, float, float] | None = None
    """A cell to mark: x, y, width, height in pixels."""
    note: str = ""


def overlays(
    *,
    name: str,
    title: str,
    caption: str,
    alt: str,
    panels: Sequence[Overlay],
    columns: int = 4,
    panel_width: float = PANEL_WIDTH,
    saturation: float = 1.0,
) -> Figure:
    """A figure with one image for each panel; the colors of every panel are those of its own values.

    The table holds the images, reduced to 384 pixels, so a figure has the data-use class of its images.

    Args:
        name: Name of its files.
        title: Its title.
        caption: Text below it.
        alt: The finding in words.
        panels: The panels, in reading order.
        columns: Panels side by side.
        panel_width: Width of a panel, in inches.
        saturation: Quantile of a panel's values above which the color stays the same, for maps with a few cells that
            are much brighter than all others.
    """
    table = pl.DataFrame([_row(panel) for panel in panels], schema=_SCHEMA)
    settings = {"columns": columns, "panel_width": panel_width, "saturation": saturation}
    return Figure(name=name, kind=KIND, title=title, caption=caption, alt=alt, table=table, settings=settings)


def draw(figure: Figure) -> Canvas:
    """Draw a figure of this kind."""
    count = figure.table.height
    shape = max(row["height"] / row["width"] for row in figure.table.iter_rows(named=True))
    width = figure.settings.get("panel_width", PANEL_WIDTH)
    canvas, axes = panel_grid(count, figure.settings["columns"], width=width, height=width * min(shape, 1.67) + 0.5)
    for axis, row in zip(axes, figure.table.iter_rows(named=True), strict=True):
        _draw_panel(axis, row, color_range(row, figure.settings))
    return canvas


_BOX: Final = pl.List(pl.Float64())
_SCHEMA: Final = {
    "panel": pl.String(),
    "note": pl.String(),
    "image": pl.Binary(),
    "width": pl.Int64(),
    "height": pl.Int64(),
    "views": pl.List(
        pl.Struct({"rows": pl.Int64(), "columns": pl.Int64(), "box": _BOX, "values": pl.List(pl.Float32())})
    ),
    "outlines": pl.List(pl.Struct({"name": pl.String(), "box": _BOX, "mask": pl.Binary()})),
    "marked": _BOX,
}


def _row(panel: Overlay) -> dict[str, Any]:
    width, height = panel.image.size
    return {
        "panel": panel.title,
        "note": panel.note,
        "image": small_jpeg(panel.image, _SIDE),
        "width": width,
        "height": height,
        "views": [
            {"rows": view.rows, "columns": view.columns, "box": list(view.box), "values": list(map(float, view.values))}
            for view in panel.views
        ],
        "outlines": [
            {
                "name": outline.name,
                "box": None if outline.box is None else list(outline.box),
                "mask": None if outline.mask is None else _small_mask(outline.mask),
            }
            for outline in panel.outlines
        ],
        "marked": None if panel.marked is None else list(panel.marked),
    }


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


def small_jpeg(image: Image.Image, side: int) -> bytes:
    """An image as JPEG, with its longest side reduced to `side` pixels."""
    small = image.convert("L" if image.mode in ("L", "1", "I;16") else "RGB")
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()


def _small_mask(mask: np.ndarray) -> bytes:
    picture = Image.fromarray(np.asarray(mask, dtype=bool).astype(np.uint8) * 255)
    picture.thumbnail((_SIDE, _SIDE), Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def _draw_panel(axis: Any, row: dict[str, Any], limits: tuple[float, float]) -> None:
    width, height = row["width"], row["height"]
    with Image.open(io.BytesIO(row["image"])) as image:
        axis.imshow(np.asarray(image), cmap="gray", vmin=0, vmax=255, extent=(0, width, height, 0))
    for view in row["views"]:
        _draw_view(axis, view, *limits)
    for outline in row["outlines"]:
        _draw_outline(axis, outline, width, height)
    if row["marked"] is not None:
        x, y, w, h = row["marked"]
        axis.add_patch(Rectangle((x, y), w, h, fill=False, edgecolor="white", linewidth=2.5))
        axis.add_patch(Rectangle((x, y), w, h, fill=False, edgecolor="black", linewidth=1))
    axis.set_xlim(0, width)
    axis.set_ylim(height, 0)
    axis.set_aspect("equal")
    axis.set_axis_off()
    note = f"\n{wrapped(label(row['note'], 90), 36)}" if row["note"] else ""
    axis.set_title(wrapped(label(row["panel"], 90), 34) + note, fontsize=8)


def _draw_view(axis: Any, view: dict[str, Any], low: float, high: float) -> None:
    values = np.array(view["values"], dtype=np.float32).reshape(view["rows"], view["columns"])
    x, y, width, height = view["box"]
    shown = np.ma.masked_invalid(values)
    axis.imshow(
        shown, cmap=_HEAT, vmin=low, vmax=high if high > low else low + 1, extent=(x, x + width, y + height, y),
        interpolation="nearest",
    )  # fmt: skip


def _draw_outline(axis: Any, outline: dict[str, Any], width: int, height: int) -> None:
    for color, line in (("black", 2.2), (_OUTLINE, 1.1)):
        if outline["mask"] is not None:
            with Image.open(io.BytesIO(outline["mask"])) as picture:
                mask = np.pad(np.asarray(picture, dtype=np.float32) / 255, 1)
            rows, columns = mask.shape[0] - 2, mask.shape[1] - 2
            x = (np.arange(columns + 2) - 0.5) * width / columns
            y = (np.arange(rows + 2) - 0.5) * height / rows
            if mask.any():
                axis.contour(x, y, mask, levels=[0.5], colors=color, linewidths=line)
        elif outline["box"] is not None:
            left, top, wide, high = outline["box"]
            axis.add_patch(Rectangle((left, top), wide, high, fill=False, edgecolor=color, linewidth=line))
