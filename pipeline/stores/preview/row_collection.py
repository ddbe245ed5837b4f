"""One pass over the sample: summaries of rows, and measures of rows and images to compare."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from ....progress import Progress, Silent
from ....teacher_cache.store import TeacherStore
from .cell_features import RowCells, image_cells
from .odd_rows import find_equal_rows, is_far, with_comparisons
from .row_flaws import patch_norms
from .row_sample import ReadRow, RowSummary, read_rows
from .sample_images import PreviewImages

_FIRST: Final = 8
"""Rows from which the scale of each channel is taken."""

_NORMS: Final = 48
"""Patches of each row whose norms are drawn."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class CollectedRows:
    """What one pass over the sample leaves; indices of the measures count `compared`."""

    summaries: list[RowSummary]
    with_image: int
    """Rows with a readable image."""
    compared: list[RowSummary]
    """Rows with a readable image that are neither broken nor far from all others."""
    row_cells: Float[Tensor, "row cell q"] | None
    """None if `compared` is empty."""
    image_cells: Float[Tensor, "row cell p"] | None
    norms: list[float]
    """Norms of some patches of every row; empty in a Gram store."""
    equal_rows: int
    """Rows of the whole store that equal the row of an image with other pixels."""


def collect_rows(
    store: TeacherStore, positions: Sequence[int], images: PreviewImages | None, progress: Progress
) -> CollectedRows:
    """Read rows and their images once, and keep only numbers of them.

    Raises:
        StoreError: The index of the store is damaged, or the store cannot be read.
    """
    first = [row.target for row in read_rows(store, positions[:_FIRST], Silent()) if row.target is not None]
    measures = RowCells(store.header, first)
    rows: list[RowSummary] = []
    cells: dict[int, tuple[Tensor, Tensor]] = {}
    norms: list[float] = []
    with_image = 0
    for read in read_rows(store, positions, progress):
        image = None if images is None else images.read(read.summary.position)
        summary = read.summary
        if images is not None and (contradiction := images.contradictions.get(summary.position)):
            summary = replace(summary, flaws=(*summary.flaws, contradiction))
        rows.append(summary)
        with_image += image is not None
        norms += _some_norms(read)
        if image is not None and not read.summary.flaws and read.target is not None and read.S is not None:
            cells[len(rows) - 1] = measures.measure(read.target, read.S), image_cells(image, store.header)
    equal = find_equal_rows(store)
    rows = with_comparisons(rows, equal, store)
    compared = [place for place in cells if not is_far(rows[place])]
    return CollectedRows(
        summaries=rows,
        with_image=with_image,
        compared=[rows[place] for place in compared],
        row_cells=torch.stack([cells[place][0] for place in compared]) if compared else None,
        image_cells=torch.stack([cells[place][1] for place in compared]) if compared else None,
        norms=norms,
        equal_rows=len(equal),
    )


def _some_norms(read: ReadRow) -> list[float]:
    """Norms of patches at equal distances."""
    norms = None if read.target is None else patch_norms(read.target)
    return [] if norms is None else norms[:: max(1, len(norms) // _NORMS)].tolist()
