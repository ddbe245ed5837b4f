"""Points: projections of tokens to the plane (t-SNE, PCA), as in Figures 1 and 5 of the paper."""

from collections.abc import Mapping
from typing import Any

import polars as pl
from matplotlib.figure import Figure as Canvas

from .figure import Figure, in_order
from .style import label, panel_grid, series_style, shared_legend, wrapped

KIND = "points"


def points(
    *,
    name: str,
    title: str,
    caption: str,
    alt: str,
    points: pl.DataFrame,
    notes: Mapping[str, str] | None = None,
    columns: int = 4,
) -> Figure:
    """A figure with one point for each row, with a color and a marker for each group.

    Args:
        name: Name of its files.
        title: Its title.
        caption: Text below it.
        alt: The finding in words.
        points: Columns panel, x, y, group.
        notes: A line below the title of a panel, such as its silhouette.
        columns: Panels side by side.
    """
    settings: dict[str, Any] = {"notes": dict(notes or {}), "columns": columns}
    return Figure(name=name, kind=KIND, title=title, caption=caption, alt=alt, table=points, settings=settings)


def draw(figure: Figure) -> Canvas:
    """Draw a figure of this kind."""
    panels, groups = in_order(figure.table["panel"]), in_order(figure.table["group"])
    canvas, axes = panel_grid(len(panels), figure.settings["columns"], width=2.7, height=2.9)
    for axis, panel in zip(axes, panels, strict=True):
        rows = figure.table.filter(pl.col("panel") == panel)
        for index, group in enumerate(groups):
            own, style = rows.filter(pl.col("group") == group), series_style(index)
            if own.height:
                axis.scatter(
                    own["x"].to_numpy(), own["y"].to_numpy(), s=9, color=style.color, marker=style.marker, alpha=0.75,
                    linewidths=0, label=label(group, 30), rasterized=rows.height > 200,
                )  # fmt: skip
        note = figure.settings["notes"].get(panel)
        axis.set_title(
            "\n".join([wrapped(label(panel), 36), *([wrapped(label(note), 40)] if note else [])]), fontsize=8
        )
        axis.set_xticks([])
        axis.set_yticks([])
        axis.spines[["top", "right"]].set_visible(True)
    shared_legend(canvas, axes, len(groups))
    return canvas
