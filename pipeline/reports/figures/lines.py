"""Lines: values over layers or steps, with intervals."""

from typing import Any

import polars as pl
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator

from .figure import Figure, in_order
from .style import label, panel_grid, series_style, shared_legend

KIND = "lines"


def lines(
    *,
    name: str,
    title: str,
    caption: str,
    alt: str,
    points: pl.DataFrame,
    x_label: str,
    y_label: str,
    log_y: bool = False,
) -> Figure:
    """A figure with one line for each series.

    Args:
        name: Name of its files.
        title: Its title.
        caption: Text below it.
        alt: The finding in words.
        points: Columns panel, series, x, y and, for a band around the line, low and high. The x of integers are marked.
        x_label: What x is, with its unit.
        y_label: What y is, with its unit.
        log_y: Whether y is on a logarithmic scale.
    """
    settings: dict[str, Any] = {"x_label": x_label, "y_label": y_label, "log_y": log_y}
    return Figure(name=name, kind=KIND, title=title, caption=caption, alt=alt, table=points, settings=settings)


def draw(figure: Figure) -> Canvas:
    """Draw a figure of this kind."""
    panels, names = in_order(figure.table["panel"]), in_order(figure.table["series"])
    columns = 2 if len(panels) == 4 else 3
    canvas, axes = panel_grid(len(panels), columns, width=7.0 if len(panels) == 1 else 3.6)
    for axis, panel in zip(axes, panels, strict=True):
        rows = figure.table.filter(pl.col("panel") == panel)
        for series in in_order(rows["series"]):
            _draw_line(axis, rows.filter(pl.col("series") == series), str(series), names.index(series))
        if len(panels) > 1 or panel:
            axis.set_title(label(panel))
        if rows["x"].dtype.is_integer():
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        if figure.settings["log_y"]:
            axis.set_yscale("log")
        axis.set_xlabel(label(figure.settings["x_label"]))
        axis.set_ylabel(label(figure.settings["y_label"]))
    shared_legend(canvas, axes, len(names))
    return canvas


def _draw_line(axis: Any, rows: pl.DataFrame, name: str, index: int) -> None:
    style, count = series_style(index), rows.height
    x, y = rows["x"].to_numpy(), rows["y"].cast(pl.Float64).to_numpy()
    marked = style.marker if count <= 40 else None
    axis.plot(
        x, y, color=style.color, linestyle=style.dash, marker=marked, markersize=4, linewidth=1.5, label=label(name)
    )
    if {"low", "high"} <= set(rows.columns):
        low, high = (rows[side].cast(pl.Float64).to_numpy() for side in ("low", "high"))
        axis.fill_between(x, low, high, color=style.color, alpha=0.15, linewidth=0)
