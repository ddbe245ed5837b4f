"""One pass over the sample: summaries of rows, measures of rows and images to compare, and the rows to draw."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from ....progress import Progress, Silent
from ....teacher_cache.store import TeacherStore
from .cell_features import RowCells, image_cells
from .odd_rows import find_equal_rows, with_comparisons
from .row_sample import ReadRow, RowSummary, read_rows
from .sample_images import PreviewImages

DRAWN: Final = 6
"""Rows that are drawn; as many odd ones are drawn beside them."""
_FIRST: Final = 8
"""Rows from which the scale of each channel is taken."""


@dataclass(frozen=True, slots=True, eq=False)
class DrawnRow:
    """A row to draw, with its image if it is at hand."""

    read: ReadRow
    image: Image.Image | None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class CollectedRows:
    """What one pass over the sample leaves; indices of the measures count `compared`."""

    summaries: list[RowSummary]
    with_image: int
    """Rows with a readable image."""
    compared: list[RowSummary]
    """Rows with a readable image and without flaws of their own."""
    row_cells: Float[Tensor, "row cell q"] | None
    """None if `compared` is empty."""
    image_cells: Float[Tensor, "row cell p"] | None
    equal_rows: int
    """Rows of the whole store that equal the row of an image with other pixels."""
    drawn: list[DrawnRow]
    """Random rows."""
    odd: list[DrawnRow]
    """Rows with flaws, of every kind if possible."""


def collect_rows(
    store: TeacherStore, positions: Sequence[int], images: PreviewImages | None, seed: int, progress: Progress
) -> CollectedRows:
    """Read rows and their images once; E_v and S are kept only of the rows that are drawn.

    Raises:
        StoreError: The index of the store is damaged, or the store cannot be read.
    """
    first = [row.target for row in read_rows(store, positions[:_FIRST], Silent()) if row.target is not None]
    measures = RowCells(store.header, first)
    chosen = _to_draw(positions, images, seed)
    rows: list[RowSummary] = []
    compared: list[RowSummary] = []
    cells: list[tuple[Tensor, Tensor]] = []
    drawn: list[DrawnRow] = []
    odd: dict[str, list[DrawnRow]] = {}
    with_image = 0
    for read in read_rows(store, positions, progress):
        image = None if images is None else images.read(read.summary.position)
        summary = read.summary
        if images is not None and (contradiction := images.contradictions.get(summary.position)):
            summary = replace(summary, flaws=(*summary.flaws, contradiction))
        rows.append(summary)
        with_image += image is not None
        if image is not None and not read.summary.flaws and read.target is not None and read.S is not None:
            compared.append(summary)
            cells.append((measures.measure(read.target, read.S), image_cells(image, store.header)))
        if summary.position in chosen:
            drawn.append(DrawnRow(read, image))
        for flaw in summary.flaws:
            odd.setdefault(flaw.kind, []).append(DrawnRow(read, image))
            del odd[flaw.kind][DRAWN:]
    equal = find_equal_rows(store)
    return CollectedRows(
        summaries=with_comparisons(rows, equal, store),
        with_image=with_image,
        compared=compared,
        row_cells=torch.stack([row for row, _ in cells]) if cells else None,
        image_cells=torch.stack([image for _, image in cells]) if cells else None,
        equal_rows=len(equal),
        drawn=drawn,
        odd=_in_turn(list(odd.values())),
    )


def _to_draw(positions: Sequence[int], images: PreviewImages | None, seed: int) -> set[int]:
    """Random positions, of rows with images if there are any."""
    pictured = [position for position in positions if images is not None and images.has(position)]
    order = np.random.default_rng([seed, 1]).permutation(np.array(pictured or positions, dtype=np.int64))
    return set(order[:DRAWN].tolist())


def _in_turn(groups: list[list[DrawnRow]]) -> list[DrawnRow]:
    """The first of each group, then the second of each, without repeats."""
    rows: dict[int, DrawnRow] = {}
    for place in range(DRAWN):
        for group in groups:
            if place < len(group):
                rows.setdefault(group[place].read.summary.position, group[place])
    return list(rows.values())[:DRAWN]
