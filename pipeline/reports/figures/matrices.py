"""Matrices as heat maps, such as cosine matrices of patches."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from matplotlib.figure import Figure as Canvas

from .figure import Figure, in_order
from .style import label, panel_grid, wrapped

KIND = "matrices"


def matrices(
    *,
    name: str,
    title: str,
    caption: str,
    alt: str,
    panels: Sequence[tuple[str, np.ndarray]],
    x_label: str,
    y_label: str,
    value_label: str,
    limits: tuple[float, float] | None = None,
) -> Figure:
    """A figure with one heat map for each panel.

    Args:
        name: Name of its files.
        title: Its title.
        caption: Text below it.
        alt: The finding in words.
        panels: Title and values [rows, columns] of each.
        x_label: What the columns are.
        y_label: What the rows are.
        value_label: What the values are, with their unit.
        limits: Range of the colors; default: that of all finite values.
    """
    table = pl.DataFrame(
        {
            "panel": [panel for panel, _ in panels],
            "rows": [values.shape[0] for _, values in panels],
            "columns": [values.shape[1] for _, values in panels],
            "values": [np.asarray(values, dtype=np.float32).ravel().tolist() for _, values in panels],
        },
        schema_overrides={"values": pl.List(pl.Float32)},
    )
    settings: dict[str, Any] = {
        "x_label": x_label,
        "y_label": y_label,
        "value_label": value_label,
        "limits": None if limits is None else list(limits),
    }
    return Figure(name=name, kind=KIND, title=title, caption=caption, alt=alt, table=table, settings=settings)


def draw(figure: Figure) -> Canvas:
    """Draw a figure of this kind."""
    panels = in_order(figure.table["panel"])
    canvas, axes = panel_grid(len(panels), 3, width=3.4, height=3.0)
    low, high = figure.settings["limits"] or _range(figure.table)
    for axis, row in zip(axes, figure.table.iter_rows(named=True), strict=True):
        values = np.array(row["values"], dtype=np.float32).reshape(row["rows"], row["columns"])
        picture = axis.imshow(values, cmap="cividis", vmin=low, vmax=high, interpolation="nearest", aspect="auto")
        axis.set_title(wrapped(label(row["panel"]), 40))
        axis.set_xlabel(label(figure.settings["x_label"]))
        axis.set_ylabel(label(figure.settings["y_label"]))
        axis.grid(visible=False)
    canvas.colorbar(picture, ax=axes, label=label(figure.settings["value_label"]), shrink=0.8)
    return canvas


def _range(table: pl.DataFrame) -> tuple[float, float]:
    values = np.concatenate([np.array(row, dtype=np.float32) for row in table["values"].to_list()])
    finite = values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
