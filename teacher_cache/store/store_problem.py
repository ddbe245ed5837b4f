"""What a check of a store found: a record for each problem, so that repair knows what to do, and each row compared."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "header",
    "metadata",
    "record",
    "shard",
    "derived",
    "leftover",
    "stranger",
    "content",
    "root",
    "signature",
    "signature file",
    "signer",
]
"""What is wrong, by what mends it.

- header: zarr.json; restored from its copy in index.parquet.
- metadata: zarr.json of another group or of an array; follows from the header.
- record: a ledger record; restored from index.parquet where that is sound, else its shard is computed again.
- shard: data; computed again from the images.
- derived: index, failures, card, Croissant and manifest; follow from header and ledger.
- leftover: a temporary file of medalign's own; removed.
- stranger: a file that is no part of the store; whoever put it there must say what becomes of it.
- content: bytes that are as they were written, but not what the teacher says of the image; nothing mends that.
- root: every digest fits, but the root digest is not the one that was computed, expected or signed; nothing mends that.
- signature: signature.json vouches for something else than the store holds; nothing mends that.
- signature file: signature.json is damaged or gone, and is not what the manifest lists; repair removes it.
- signer: the store is not signed, or by another key than the one that is trusted; that is no damage.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """One thing that is not as its writer left it."""

    kind: Kind
    key: str
    """Path of the file inside the store."""
    what: str
    shard: int | None = None
    rows: tuple[int, ...] = ()
    """Rows that cannot be trusted; empty where none is concerned."""

    def __str__(self) -> str:
        return f"{self.key}{f', {rows_text(self.rows)}' if self.rows else ''}: {self.what}"


@dataclass(frozen=True, kw_only=True, slots=True)
class RowComparison:
    """One row, as it is stored and as it comes out now."""

    row: int
    shard: int
    image_hash: str
    same_pixels: bool
    """Whether the image decodes to the pixels that the teacher saw; another decoder's may differ a little."""
    bit_equal: bool
    max_dS: float
    """Between the stored S and that of the float32 teacher now."""
    max_dS_allowed: float
    min_cosine: float | None
    """Over patches, of E_v; `None` where the store has no E_v."""
    min_cosine_allowed: float | None
    max_dE_a: float
    """As a part of the image's largest E_a."""
    max_dE_a_allowed: float

    @property
    def within(self) -> bool:
        """Whether all of it is within the bounds; nan is not."""
        cosine = self.min_cosine is None or (
            self.min_cosine_allowed is not None and self.min_cosine >= self.min_cosine_allowed
        )
        return cosine and self.max_dS <= self.max_dS_allowed and self.max_dE_a <= self.max_dE_a_allowed

    @property
    def verdict(self) -> str:
        """The three measures beside their bounds."""
        told = f"max|dS| {self.max_dS:.2g} of {self.max_dS_allowed:.2g}, E_a off by {self.max_dE_a:.2g} of "
        told += f"{self.max_dE_a_allowed:.2g}"
        if self.min_cosine is None or self.min_cosine_allowed is None:
            return told
        return f"{told}, least cosine {self.min_cosine:.6f} of {self.min_cosine_allowed:.6f}"


def rows_text(rows: Sequence[int]) -> str:
    """`row 3`, `rows 3-5, 9`."""
    spans: list[list[int]] = []
    for row in sorted(rows):
        if spans and row == spans[-1][1] + 1:
            spans[-1][1] = row
        else:
            spans.append([row, row])
    listed = ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)
    return f"row{'s' if len(rows) > 1 else ''} {listed}"


def distinct(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Without repetitions, in the order found."""
    return tuple(dict.fromkeys(problems))
