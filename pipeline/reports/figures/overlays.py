"""Overlays: attention of patches on images, with outlines of annotated regions, as in Figures 2 and 6 of the paper."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl
from matplotlib.figure import Figure as Canvas
from matplotlib.patches import Rectangle
from PIL import Image

from ....student.inputs.views import ImageLayout
from .figure import Figure
from .overlay_pixels import color_range, panel_pixels
from .overlay_sheet import Place, Sheet

KIND = "overlays"
_SIDE: Final = 384
"""Longest side of a stored image, in pixels."""
_QUALITY: Final = 85
PANEL_WIDTH: Final = 2.4
"""In inches."""
_OUTLINE: Final = "#00e5ff"


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
    images = {id(panel.image): panel.image for panel in panels}  # usually the same one in all panels
    small = {key: small_jpeg(image, _SIDE) for key, image in images.items()}
    table = pl.DataFrame([_row(panel, small[id(panel.image)]) for panel in panels], schema=_SCHEMA)
    settings = {"columns": columns, "panel_width": panel_width, "saturation": saturation}
    return Figure(name=name, kind=KIND, title=title, caption=caption, alt=alt, table=table, settings=settings)


def draw(figure: Figure) -> Canvas:
    """Draw a figure of this kind.

    All images are pixels of one picture, because an axis for each would take ten times as long.
    """
    rows = list(figure.table.iter_rows(named=True))
    sheet = Sheet.of(rows, figure.settings["columns"], figure.settings.get("panel_width", PANEL_WIDTH))
    pixels = np.full((sheet.height, sheet.width, 3), 255, np.uint8)
    for row, place in zip(rows, sheet.places, strict=True):
        part = panel_pixels(row, (place.width, place.height), color_range(row, figure.settings))
        pixels[place.top : place.top + place.height, place.left : place.left + place.width] = part
    canvas, axis = sheet.canvas(pixels)
    for row, place in zip(rows, sheet.places, strict=True):
        axis.text(place.left + place.width / 2, place.top - 4, place.title, fontsize=8, ha="center", va="bottom")
        _draw_lines(axis, row, place)
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


def _row(panel: Overlay, small_image: bytes) -> dict[str, Any]:
    width, height = panel.image.size
    return {
        "panel": panel.title,
        "note": panel.note,
        "image": small_image,
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


def _draw_lines(axis: Any, row: dict[str, Any], place: Place) -> None:
    """Draw outlines and the marked cell of a panel, cut off at the border of its image."""
    border = Rectangle((place.left, place.top), place.width, place.height, transform=axis.transData)
    for outline in row["outlines"]:
        for color, line in (("black", 2.2), (_OUTLINE, 1.1)):
            if outline["mask"] is not None:
                _draw_mask(axis, outline["mask"], place, border, color, line)
            elif outline["box"] is not None:
                _draw_box(axis, place.box(row, outline["box"]), border, color, line)
    if row["marked"] is not None:
        for color, line in (("white", 2.5), ("black", 1.0)):
            _draw_box(axis, place.box(row, row["marked"]), border, color, line)


def _draw_box(axis: Any, box: tuple[float, float, float, float], border: Rectangle, color: str, line: float) -> None:
    x, y, width, height = box
    patch = axis.add_patch(Rectangle((x, y), width, height, fill=False, edgecolor=color, linewidth=line))
    patch.set_clip_path(border)


def _draw_mask(axis: Any, png: bytes, place: Place, border: Rectangle, color: str, line: float) -> None:
    with Image.open(io.BytesIO(png)) as picture:
        mask = np.pad(np.asarray(picture, dtype=np.float32) / 255, 1)
    rows, columns = mask.shape[0] - 2, mask.shape[1] - 2
    x = place.left + (np.arange(columns + 2) - 0.5) * place.width / columns
    y = place.top + (np.arange(rows + 2) - 0.5) * place.height / rows
    if mask.any():
        axis.contour(x, y, mask, levels=[0.5], colors=color, linewidths=line).set_clip_path(border)
