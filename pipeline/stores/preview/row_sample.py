"""A seeded sample of a store's rows, read through its public reader, and one summary of each."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ....progress import Progress
from ....teacher_cache.store import DamagedStore, TeacherStore, TeacherTarget
from .row_flaws import Flaw, attention_entropy, find_flaws, mean_cosine, patch_norms, similarity_of

_AT_ONCE: Final = 8
"""Rows per read; a store behind a URL answers once for all of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RowSummary:
    """One row in a few numbers; nan where a row has no such number."""

    position: int
    """Position in the index."""
    row: int
    image_hash: str
    """As in the store, keyed if the store is."""
    norm: float = math.nan
    """Median norm of the patches of E_v."""
    norm_range: float = math.nan
    """Largest norm divided by the median."""
    cosine: float = math.nan
    """Mean cosine of two different patches."""
    cosine_spread: float = math.nan
    """Standard deviation of the cosines."""
    entropy: float = math.nan
    """Entropy of E_a in nats."""
    flaws: tuple[Flaw, ...] = ()


@dataclass(frozen=True, slots=True)
class ReadRow:
    """A row with its targets; None if it cannot be read."""

    summary: RowSummary
    target: TeacherTarget | None
    S: Float[Tensor, "patch patch"] | None


def draw_positions(store: TeacherStore, rows: int, seed: int, first: Sequence[int] = ()) -> list[int]:
    """Positions of `rows` random rows in row order; those in `first` are drawn before any others."""
    generator = np.random.default_rng(seed)
    preferred = generator.permutation(np.array(sorted(first), dtype=np.int64))
    rest = generator.permutation(np.setdiff1d(np.arange(len(store)), preferred, assume_unique=True))
    return sorted(np.concatenate([preferred, rest])[:rows].tolist())


def read_rows(store: TeacherStore, positions: Sequence[int], progress: Progress) -> Iterator[ReadRow]:
    """Read rows and summarize them one by one; a damaged row is reported and does not end the reading.

    Raises:
        StoreError: The index of the store is damaged.
    """
    names = list(store)
    columns = store.index_columns(["row"])
    rows = columns.column("row").to_numpy()
    progress.start("reading rows", len(positions))
    for start in range(0, len(positions), _AT_ONCE):
        group = positions[start : start + _AT_ONCE]
        found = _read(store, {position: names[position] for position in group})
        for position in group:
            yield _summarized(store, found[position], position, int(rows[position]), names[position])
            progress.advance()


def index_values(store: TeacherStore, names: Sequence[str]) -> Mapping[str, np.ndarray]:
    """Columns of the index as arrays, in the order of positions."""
    table = store.index_columns(names)
    return {name: table.column(name).to_numpy(zero_copy_only=False) for name in names}


def _read(store: TeacherStore, names: Mapping[int, str]) -> dict[int, TeacherTarget | str]:
    """The targets of some rows, or why a row has none."""
    try:
        targets = store.read(list(names.values()))
    except DamagedStore as error:
        if len(names) == 1:
            return {position: _reason(error, store) for position in names}
        return {at: value for position, name in names.items() for at, value in _read(store, {position: name}).items()}
    return {
        position: TeacherTarget(
            E_v=None if targets.E_v is None else targets.E_v[place],
            S=None if targets.S is None else targets.S[place],
            E_a=targets.E_a[place],
        )
        for place, position in enumerate(names)
    }


def _reason(error: DamagedStore, store: TeacherStore) -> str:
    """Why a row cannot be read: without its number and store, so that rows with one reason can be listed together."""
    return re.sub(rf" of row \d+ of {re.escape(store.location)}", "", str(error).split(". `medalign", 1)[0])


def _summarized(store: TeacherStore, found: TeacherTarget | str, position: int, row: int, name: str) -> ReadRow:
    if isinstance(found, str):
        flaw = Flaw("unreadable", found)
        return ReadRow(RowSummary(position=position, row=row, image_hash=name, flaws=(flaw,)), None, None)
    S, norms = similarity_of(found), patch_norms(found)
    middle = math.nan if norms is None else float(norms.median())
    summary = RowSummary(
        position=position,
        row=row,
        image_hash=name,
        norm=middle,
        norm_range=math.nan if norms is None or middle == 0 else float(norms.max()) / middle,
        cosine=mean_cosine(S),
        cosine_spread=float(torch.std(S, correction=0)),
        entropy=attention_entropy(found.E_a),
        flaws=tuple(find_flaws(found, S, store.header.native_grid)),
    )
    return ReadRow(summary, found, S)
