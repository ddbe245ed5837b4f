"""Where the panels of an overlay figure are: pixels of one sheet, with a title above each image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas

from .overlay_pixels import Pixels
from .style import RESOLUTION, label, wrapped

_MARGIN: Final = 6
"""Space beside panels, in pixels."""
_LINE: Final = 15
"""Height of a line of a title, in pixels."""
_TALLEST: Final = 1.67
"""Largest height of an image, in widths of a panel."""
_LETTERS: Final = 15
"""Letters of a title in an inch."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """The image of one panel on the sheet, in pixels."""

    left: int
    top: int
    width: int
    height: int
    title: str
    """Written above it, in one or more lines."""

    def box(self, row: Mapping[str, Any], box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
        """A box in pixels of the panel's image, in pixels of the sheet."""
        x, y, width, height = box
        across, down = self.width / row["width"], self.height / row["height"]
        return self.left + x * across, self.top + y * down, width * across, height * down


@dataclass(frozen=True, kw_only=True, slots=True)
class Sheet:
    """A sheet with a place for each panel."""

    width: int
    height: int
    places: tuple[Place, ...]

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]], columns: int, panel_width: float) -> "Sheet":
        """Place panels in lines of `columns`; each is `panel_width` inches wide."""
        side = round(panel_width * RESOLUTION)
        columns = max(1, min(columns, len(rows)))
        places: list[Place] = []
        top = _MARGIN
        for start in range(0, len(rows), columns):
            line = rows[start : start + columns]
            titles = [_title(row, int(panel_width * _LETTERS)) for row in line]
            sizes = [_size(row, side) for row in line]
            top += max(title.count("\n") + 1 for title in titles) * _LINE + _MARGIN
            for number, (title, (width, height)) in enumerate(zip(titles, sizes, strict=True)):
                left = _MARGIN + number * (side + _MARGIN) + (side - width) // 2
                places.append(Place(left=left, top=top, width=width, height=height, title=title))
            top += max(height for _, height in sizes) + _MARGIN
        return cls(width=_MARGIN + columns * (side + _MARGIN), height=top, places=tuple(places))

    def canvas(self, pixels: Pixels) -> tuple[Canvas, Any]:
        """A figure that shows the pixels of the sheet, one for one, and its axis, whose unit is a pixel."""
        canvas = Canvas(figsize=(self.width / RESOLUTION, self.height / RESOLUTION))
        FigureCanvasAgg(canvas)
        axis = canvas.add_axes((0, 0, 1, 1))
        axis.set_axis_off()
        axis.imshow(pixels, extent=(0, self.width, self.height, 0), aspect="auto", interpolation="none")
        axis.set_xlim(0, self.width)
        axis.set_ylim(self.height, 0)
        return canvas, axis


def _size(row: Mapping[str, Any], side: int) -> tuple[int, int]:
    scale = min(side / row["width"], _TALLEST * side / row["height"])
    return max(1, round(row["width"] * scale)), max(1, round(row["height"] * scale))


def _title(row: Mapping[str, Any], letters: int) -> str:
    texts = [wrapped(label(text, 90), letters) for text in (row["panel"], row["note"]) if text]
    return "\n".join(texts)
