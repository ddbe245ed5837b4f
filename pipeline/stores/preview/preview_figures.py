"""The figures of a preview: agreement with images, E_a, S from one cell, and histograms."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import polars as pl
from jaxtyping import Float
from torch import Tensor

from ....choices import Geometry
from ....plain_text import counted
from ....student.inputs.views import square_layout
from ....teacher_cache.store import StoreHeader
from ...reports.figures.figure import Figure
from ...reports.figures.histograms import histograms
from ...reports.figures.matrices import matrices
from ...reports.figures.overlays import Overlay, map_views, overlays
from .drawn_rows import DrawnRow
from .image_fit import ImageFit
from .preview_verdict import chance_words
from .row_collection import CollectedRows

_DIGITS: Final = 8
"""Digits of an image hash in a title."""
_SQUARE: Final[dict[Geometry, str]] = {
    "pad": "The grid covers the padded square, so rows and columns of padding count too.",
    "crop": "The grid covers only the square in the middle of the image.",
}
"""What the rows and columns of a cell count."""
_PANEL_WIDTH: Final = 3.0
"""In inches; three of them are as wide as the page."""


def fit_figure(fit: ImageFit, seed: int) -> Figure:
    """How well rows agree with their own images, beside as many pairs of a row and another image."""
    agreement = fit.scores.agreement
    count = len(agreement)
    others = (np.arange(count) + np.random.default_rng([seed, 2]).integers(1, count, count)) % count
    series = {"own image": np.diag(agreement), "image of another row": agreement[np.arange(count), others]}
    points = [
        {"panel": "", "series": name, "value": float(value)} for name, values in series.items() for value in values
    ]
    numbers = (
        f"mean agreement with the own image {fit.own:.3f}, with images of other rows {fit.other:.3f}; the own image "
        f"agrees better in {100 * fit.preferred:.1f} % of the pairs; with the images in random order, "
        f"{chance_words(fit)}"
    )
    return histograms(
        name="agreement",
        title="Agreement of rows with images",
        caption="Each row against what its own image, and one other image, predict for it. If rows were permuted or of "
        f"other images, the two histograms would cover each other. Means: {fit.own:.3f} for the own image, "
        f"{fit.other:.3f} for images of other rows.",
        alt=f"Two histograms of {count} rows: {numbers}.",
        points=pl.DataFrame(points),
        x_label="agreement (cosine)",
    )


def attention_figure(
    rows: Sequence[DrawnRow], header: StoreHeader, *, name: str, title: str, why: str, columns: int = 3
) -> Figure:
    """E_a of some rows, over their images where these are at hand."""
    maps = [row.E_a / row.E_a.max().clamp_min(1e-12) for row in rows]
    value = "E_a, share of the row's largest value"
    return _maps_figure(rows, header, maps, name=name, title=title, why=why, value=value, columns=columns)


def similarity_figure(rows: Sequence[DrawnRow], header: StoreHeader, patch: int | None) -> Figure:
    """S from one cell of some rows; None: the cell with most attention of each."""
    cells = [int(row.E_a.argmax()) if patch is None else patch for row in rows]
    maps = [row.S[cell] for row, cell in zip(rows, cells, strict=True)]
    noted = [
        replace(row, note=f"cell {_cell_text(cell, header)}; cosine {values.min():.2f} to {values.max():.2f}")
        for row, cell, values in zip(rows, cells, maps, strict=True)
    ]
    chosen = "the cell with most attention" if patch is None else f"cell {_cell_text(patch, header)}"
    return _maps_figure(
        noted,
        header,
        maps,
        name="similarity",
        title=f"Similarity S from {chosen}",
        why="Cosines of one cell with all others: the same tissue should be bright. The cell is outlined, and named "
        f"above each picture by its row and column in the {header.grid} grid, counted from 0. "
        f"{_SQUARE[header.geometry]}",
        value="cosine",
        cells=cells,
    )


def numbers_figure(rows: CollectedRows, header: StoreHeader) -> Figure:
    """Histograms of norms, mean cosines and the entropy of E_a."""
    panels = {
        "norm of a patch of E_v": rows.norms,
        "mean cosine in a row": [row.cosine for row in rows.summaries],
        "entropy of E_a, nats": [row.entropy for row in rows.summaries],
    }
    readable = sum(not any(flaw.kind == "unreadable" for flaw in row.flaws) for row in rows.summaries)
    points = [
        {"panel": panel, "series": "rows", "value": float(value)}
        for panel, values in panels.items()
        for value in values
        if np.isfinite(value)
    ]
    words = [
        f"{panel} {np.median(finite):.3g} ({finite.min():.3g} to {finite.max():.3g})"
        for panel, values in panels.items()
        if len(finite := np.array([value for value in values if np.isfinite(value)]))
    ]
    return histograms(
        name="numbers",
        title="Norms, cosines and attention",
        caption=f"Of {counted(readable, 'row')}. The entropy of E_a is 0 nats if one cell has all "
        f"attention, and {np.log(header.grid.patches):.2f} if all cells have the same. "
        f"{'A Gram store has no norms. ' if not rows.norms else ''}Medians and ranges: {'; '.join(words)}.",
        alt=f"Histograms. Medians and ranges: {'; '.join(words)}.",
        points=pl.DataFrame(points, schema={"panel": pl.String, "series": pl.String, "value": pl.Float64}),
        x_label="",
    )


def _maps_figure(
    rows: Sequence[DrawnRow],
    header: StoreHeader,
    maps: Sequence[Float[Tensor, "patch"]],
    *,
    name: str,
    title: str,
    why: str,
    value: str,
    cells: Sequence[int] | None = None,
    columns: int = 3,
) -> Figure:
    """Maps over images if every row has one, else as matrices."""
    titles = [f"row {row.row}, image {row.image_hash[:_DIGITS]}" for row in rows]
    listed = "; ".join(f"{heading}: {row.note}" for heading, row in zip(titles, rows, strict=True))
    alt = f"{title}, {counted(len(rows), 'row')}. {listed}."
    if all(row.image is not None for row in rows):
        return overlays(
            name=name,
            title=title,
            caption=f"{why} Colors run from the smallest to the largest value of each picture.",
            alt=alt,
            panels=[
                _overlay(row, header, values, heading, None if cells is None else cells[place])
                for place, (row, values, heading) in enumerate(zip(rows, maps, titles, strict=True))
            ],
            columns=columns,
            panel_width=_PANEL_WIDTH,
        )
    shape = header.grid.rows, header.grid.columns
    return matrices(
        name=name,
        title=title,
        caption=f"{why} Without images, only the grid of cells is drawn.",
        alt=alt,
        panels=[
            (f"row {row.row}: {row.note}", values.numpy().reshape(shape))
            for row, values in zip(rows, maps, strict=True)
        ],
        x_label="column",
        y_label="row",
        value_label=value,
    )


def _overlay(
    row: DrawnRow, header: StoreHeader, values: Float[Tensor, "patch"], title: str, cell: int | None
) -> Overlay:
    assert row.image is not None
    layout = square_layout(*row.image.size, header.grid, header.geometry)
    marked = None if cell is None else layout.views[0].cell(*divmod(cell, header.grid.columns))
    return Overlay(title=title, image=row.image, views=map_views(layout, values.numpy()), marked=marked, note=row.note)


def _cell_text(cell: int, header: StoreHeader) -> str:
    row, column = divmod(cell, header.grid.columns)
    return f"{row},{column}"
