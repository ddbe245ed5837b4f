"""Bars: values of groups, with intervals, as in the ablations of the paper (Figure 4)."""

from typing import Any

import numpy as np
import polars as pl
from matplotlib.figure import Figure as Canvas

from .figure import Figure, in_order
from .style import label, panel_grid, series_style, shared_legend, wrapped

KIND = "bars"


def bars(
    *, name: str, title: str, caption: str, alt: str, points: pl.DataFrame, value_label: str, from_zero: bool = True
) -> Figure:
    """A figure with one bar for each group and series.

    Args:
        name: Name of its files.
        title: Its title.
        caption: Text below it.
        alt: The finding in words.
        points: Columns panel, group, series, value and, for intervals, low and high.
        value_label: What the values are, with their unit.
        from_zero: Draw bars from zero; otherwise dots, for values whose differences are small.
    """
    settings: dict[str, Any] = {"value_label": value_label, "from_zero": from_zero}
    return Figure(name=name, kind=KIND, title=title, caption=caption, alt=alt, table=points, settings=settings)


def draw(figure: Figure) -> Canvas:
    """Draw a figure of this kind."""
    panels, names = in_order(figure.table["panel"]), in_order(figure.table["series"])
    groups = max(len(in_order(figure.table.filter(pl.col("panel") == panel)["group"])) for panel in panels)
    width = min(10.0, max(3.0, 0.8 + groups * max(1.0, 0.3 * len(names))))
    letters = max(6, min(12, int((width - 0.8) / groups * 12)))  # that fit below a group, 12 to an inch
    canvas, axes = panel_grid(len(panels), max(1, int(10.8 // width)), width=width, height=3.0)
    for axis, panel in zip(axes, panels, strict=True):
        rows = figure.table.filter(pl.col("panel") == panel)
        _draw_panel(axis, rows, names, letters, from_zero=figure.settings["from_zero"])
        if len(panels) > 1 or panel:
            axis.set_title(wrapped(label(panel), int(width * 11)))
        axis.set_ylabel(label(figure.settings["value_label"]))
    shared_legend(canvas, axes, len(names))
    return canvas


def _draw_panel(axis: Any, rows: pl.DataFrame, names: list[Any], letters: int, *, from_zero: bool) -> None:
    groups = in_order(rows["group"])
    width = 0.8 / len(names)
    for index, series in enumerate(names):
        own = rows.filter(pl.col("series") == series)
        places = np.array([groups.index(group) for group in own["group"]]) + (index - (len(names) - 1) / 2) * width
        values = own["value"].cast(pl.Float64).to_numpy()
        style = series_style(index)
        errors = None
        if {"low", "high"} <= set(own.columns):
            low, high = (own[side].cast(pl.Float64).to_numpy() for side in ("low", "high"))
            errors = np.stack([np.maximum(values - low, 0), np.maximum(high - values, 0)])
        if from_zero:
            axis.bar(
                places,
                values,
                width * 0.92,
                color=style.color,
                hatch=style.hatch,
                edgecolor="white",
                label=label(series),
            )
            axis.errorbar(places, values, errors, fmt="none", ecolor="#222222", elinewidth=1, capsize=2)
        else:
            axis.errorbar(
                places, values, errors, fmt=style.marker, color=style.color, ecolor=style.color, capsize=3,
                label=label(series),
            )  # fmt: skip
    axis.axhline(0, color="#222222", linewidth=0.8)
    axis.set_xticks(
        range(len(groups)), [wrapped(label(group), letters) for group in groups], fontsize=8 if letters < 9 else None
    )
    axis.grid(axis="x", visible=False)
