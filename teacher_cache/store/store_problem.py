"""Results of checking a store: one record for each problem, which repair acts on, and one for each compared row."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

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
    "other root",
]
"""What is wrong, grouped by how it is repaired.

- header: the root zarr.json; restored from its copy in index.parquet.
- metadata: zarr.json of another group or of an array; follows from the header.
- record: a ledger record; restored from index.parquet if that is intact, otherwise its shard is recomputed.
- shard: a shard file; recomputed from the images.
- derived: index, failures, card, Croissant file and manifest; rewritten from header and ledger.
- leftover: a temporary file of medalign; removed.
- stranger: an unexpected file, which is not part of the store; left for the user to remove.
- content: unchanged bytes that do not match what the teacher computes for the image; cannot be repaired.
- root: every file matches its digest, but the root digest is not the one computed or signed; cannot be repaired.
- signature: signature.json is valid for other content than the store's; cannot be repaired.
- signature file: signature.json is damaged or missing, and does not match the manifest; repair removes it.
- signer: the store is unsigned, or signed with another key than the trusted one; this is not damage.
- other root: the root digest is not the one that the caller expects; this is not damage.
"""

UNTRUSTED: Final = ("signer", "other root")
"""Kinds that are not damage: the store is not the one that the caller trusts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """One difference between a store and what its writer left."""

    kind: Kind
    key: str
    """Path of the file inside the store."""
    what: str
    shard: int | None = None
    rows: tuple[int, ...] = ()
    """Rows that cannot be trusted; empty if no row is affected."""

    def __str__(self) -> str:
        return f"{self.key}{f', {rows_text(self.rows)}' if self.rows else ''}: {self.what}"


@dataclass(frozen=True, kw_only=True, slots=True)
class RowComparison:
    """One stored row compared with the same row computed now."""

    row: int
    shard: int
    image_hash: str
    same_pixels: bool
    """Whether the image decodes to the pixels that the teacher saw; another decoder's pixels may differ slightly."""
    bit_equal: bool
    max_dS: float
    """Largest difference between the stored S and the S that the float32 teacher computes now."""
    max_dS_allowed: float
    min_cosine: float | None
    """Smallest cosine over patches between stored and computed E_v; `None` if the store has no E_v."""
    min_cosine_allowed: float | None
    max_dE_a: float
    """Relative to the image's largest E_a."""
    max_dE_a_allowed: float

    @property
    def within(self) -> bool:
        """Whether all measures are within their bounds; nan is not."""
        cosine = self.min_cosine is None or (
            self.min_cosine_allowed is not None and self.min_cosine >= self.min_cosine_allowed
        )
        return cosine and self.max_dS <= self.max_dS_allowed and self.max_dE_a <= self.max_dE_a_allowed

    @property
    def verdict(self) -> str:
        """The measures and their bounds."""
        text = f"max|dS| {self.max_dS:.2g} (at most {self.max_dS_allowed:.2g}), E_a off by {self.max_dE_a:.2g} "
        text += f"(at most {self.max_dE_a_allowed:.2g})"
        if self.min_cosine is None or self.min_cosine_allowed is None:
            return text
        return f"{text}, smallest cosine {self.min_cosine:.6f} (at least {self.min_cosine_allowed:.6f})"


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
    """The problems without duplicates, in their order."""
    return tuple(dict.fromkeys(problems))
