"""Histograms of raw values; all series of a panel have the same bins."""

from typing import Any

import numpy as np
import polars as pl
from matplotlib.figure import Figure as Canvas

from .figure import Figure, in_order
from .style import label, panel_grid, series_style, shared_legend

KIND = "histograms"
_BINS = 40


def histograms(
    *, name: str, title: str, caption: str, alt: str, points: pl.DataFrame, x_label: str, log_y: bool = False
) -> Figure:
    """A figure with one histogram for each panel.

    Args:
        name: Name of its files.
        title: Its title.
        caption: Text below it.
        alt: The finding in words.
        points: Columns panel, series, value. Values that are not finite are left out; say so in the caption.
        x_label: What the values are, with their unit; a panel's title says the rest.
        log_y: Whether counts are on a logarithmic scale, which shows single outliers.
    """
    settings: dict[str, Any] = {"x_label": x_label, "log_y": log_y}
    return Figure(name=name, kind=KIND, title=title, caption=caption, alt=alt, table=points, settings=settings)


def draw(figure: Figure) -> Canvas:
    """Draw a figure of this kind."""
    panels, names = in_order(figure.table["panel"]), in_order(figure.table["series"])
    canvas, axes = panel_grid(len(panels), 3)
    for axis, panel in zip(axes, panels, strict=True):
        rows = figure.table.filter((pl.col("panel") == panel) & pl.col("value").is_finite())
        if rows.height:
            edges = _edges(rows["value"].cast(pl.Float64).to_numpy())
            for index, series in enumerate(names):
                own, style = rows.filter(pl.col("series") == series), series_style(index)
                if own.height:
                    counts, _ = np.histogram(own["value"].cast(pl.Float64).to_numpy(), edges)
                    axis.stairs(counts, edges, color=style.color, alpha=0.35, fill=True)
                    axis.stairs(counts, edges, color=style.color, linestyle=style.dash, label=label(series))
        axis.set_title(label(panel))
        axis.set_xlabel(label(figure.settings["x_label"]))
        axis.set_ylabel("count")
        if figure.settings["log_y"]:
            axis.set_yscale("symlog", linthresh=1)
    shared_legend(canvas, axes, len(names))
    return canvas


def _edges(values: np.ndarray) -> np.ndarray:
    low, high = float(values.min()), float(values.max())
    margin = max(abs(low), 1.0) * 1e-3 if low == high else 0.0
    return np.linspace(low - margin, high + margin, min(_BINS, max(10, int(len(values) ** 0.5))) + 1)
