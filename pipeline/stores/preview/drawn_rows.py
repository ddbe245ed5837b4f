"""The rows that a report draws: random ones, and odd ones."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from ....progress import Silent
from ....teacher_cache.store import TeacherStore
from .row_sample import RowSummary, read_rows
from .sample_images import PreviewImages

_MOST: Final = 6


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class DrawnRow:
    """A row with what is drawn of it."""

    row: int
    image_hash: str
    note: str
    E_a: Float[Tensor, "patch"]
    S: Float[Tensor, "patch patch"]
    image: Image.Image | None
    """Upright; None if it is not at hand."""


def random_rows(rows: Sequence[RowSummary], images: PreviewImages | None, seed: int) -> list[RowSummary]:
    """Some random rows, of those with an image if there are any."""
    pictured = [row for row in rows if images is not None and images.has_readable(row.position)]
    candidates = pictured or rows
    order = np.random.default_rng([seed, 1]).permutation(len(candidates))[:_MOST]
    return [candidates[place] for place in sorted(order)]


def one_of_each_kind(records: Iterable[tuple[RowSummary, str]]) -> list[RowSummary]:
    """Some rows from pairs of a row and what is odd about it: the first of each kind, then the second of each."""
    groups: dict[str, dict[int, RowSummary]] = {}
    for row, kind in records:
        groups.setdefault(kind, {}).setdefault(row.position, row)
    chosen: dict[int, RowSummary] = {}
    for place in range(_MOST):
        for group in groups.values():
            chosen |= {row.position: row for row in list(group.values())[place : place + 1]}
    return list(chosen.values())[:_MOST]


def over_other_images(
    store: TeacherStore, pairs: Sequence[tuple[RowSummary, RowSummary]], images: PreviewImages
) -> list[DrawnRow]:
    """Rows over their own image, and each again over the image of another row; pairs of a row and the other one."""
    chosen = pairs[: _MOST // 2]
    drawn = []
    for row, (_, other) in zip(read_drawn(store, [row for row, _ in chosen], images), chosen, strict=True):
        note = f"over the image of row {other.row}"
        drawn += [
            replace(row, note="over its own image"),
            replace(row, note=note, image=images.read(other.position), image_hash=other.image_hash),
        ]
    return drawn


def read_drawn(
    store: TeacherStore, rows: Sequence[RowSummary], images: PreviewImages | None, notes: Sequence[str] | None = None
) -> list[DrawnRow]:
    """Read rows again to draw them; those that cannot be read are left out. Their notes are empty by default."""
    positions = [row.position for row in rows]
    return [
        DrawnRow(
            row=read.summary.row,
            image_hash=read.summary.image_hash,
            note=note,
            E_a=read.target.E_a,
            S=read.S,
            image=None if images is None else images.read(read.summary.position),
        )
        for read, note in zip(read_rows(store, positions, Silent()), notes or [""] * len(rows), strict=True)
        if read.target is not None and read.S is not None
    ]
