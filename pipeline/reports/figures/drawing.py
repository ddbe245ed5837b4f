"""Draw any figure as PNG, SVG and PDF."""

import io
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import polars as pl
from matplotlib.figure import Figure as Canvas

from ....choices import FigureFormat
from . import bars, histograms, lines, matrices, overlays, points
from .figure import Figure
from .style import RESOLUTION, drawing_style, panel_grid

_COMPRESSION: Final = 3
"""Of PNG files: twice as fast as the default of 6, and a sixth larger."""
_OPTIONS: Final[Mapping[FigureFormat, Mapping[str, Any]]] = {
    "svg": {"metadata": {"Date": None}},
    "png": {"metadata": {"Software": None}, "pil_kwargs": {"compress_level": _COMPRESSION}},
    "pdf": {"metadata": {"CreationDate": None}},
}
"""How matplotlib saves each format: without anything that changes from run to run."""
_LARGEST: Final = 1e300
"""A larger number has no room on an axis."""
KINDS: Final[Mapping[str, Callable[[Figure], Canvas]]] = {
    kind.KIND: kind.draw for kind in (bars, histograms, lines, matrices, overlays, points)
}


def draw(figure: Figure, *formats: FigureFormat) -> list[bytes]:
    """Draw a figure once; return it in each of these formats.

    Numbers that have no place on an axis (NaN, infinite, above 1e300) are left out. A figure without rows says so.

    Raises:
        KeyError: No kind of figure has this name.
    """
    with drawing_style():
        canvas = KINDS[figure.kind](_drawable(figure)) if figure.table.height else _without_values()
        return [_saved(canvas, name) for name in formats]


def _drawable(figure: Figure) -> Figure:
    """The figure with nulls for numbers that no axis can show, and empty names for null ones."""
    columns = figure.table.schema.items()
    numbers = [name for name, kind in columns if kind.is_float()]
    names = [name for name, kind in columns if kind == pl.String]
    table = figure.table.with_columns(
        *(pl.when(pl.col(name).abs() <= _LARGEST).then(pl.col(name)) for name in numbers),
        pl.col(names).fill_null(""),
    )
    return replace(figure, table=table)


def _without_values() -> Canvas:
    canvas, (axis,) = panel_grid(1, 1)
    axis.set_axis_off()
    axis.text(0.5, 0.5, "no values", ha="center", va="center", transform=axis.transAxes)
    return canvas


def _saved(canvas: Canvas, name: FigureFormat) -> bytes:
    buffer = io.BytesIO()
    canvas.savefig(buffer, format=name, dpi=RESOLUTION, **_OPTIONS[name])
    return buffer.getvalue()
