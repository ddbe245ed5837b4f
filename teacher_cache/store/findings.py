"""What a check of a store found: one record for each problem, so that repair knows what to do about it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["header", "metadata", "record", "shard", "derived", "stranger", "content"]
"""What is wrong, by what mends it.

- header: zarr.json; restored from its copy in index.parquet.
- metadata: zarr.json of another group or of an array; follows from the header.
- record: a ledger record; restored from index.parquet where that is sound, else its shard is computed again.
- shard: data; computed again from the images.
- derived: index, failures, card, Croissant and manifest; follow from header and ledger.
- stranger: a file that is no part of the store; whoever put it there must say what becomes of it.
- content: bytes that are as they were written, but not what the teacher says of the image; nothing mends that.
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
