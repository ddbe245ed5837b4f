"""Rows that look odd beside the others: equal to the row of another image, or far from all others."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from ....plain_text import counted
from ....teacher_cache.store import TeacherStore
from .row_flaws import Flaw
from .row_sample import RowSummary, index_values

BROKEN: Final = frozenset({"unreadable", "zero", "constant", "saturated", "impossible attention"})
"""Flaws that no sound row has. The others can have a reason: a picture stored twice, or an unusual image."""
FEWEST_TO_COMPARE: Final = 20
"""Rows from which it can be said that one is far from all others."""
_FAR: Final = 15.0
"""Robust standard deviations."""
_NUMBERS: Final = {
    "norm": "its patches' median norm",
    "norm_range": "its largest norm over its median norm",
    "cosine": "its mean cosine",
    "cosine_spread": "the spread of its cosines",
    "entropy": "the entropy of its E_a",
}
_VERBS: Final[Mapping[str, tuple[str, str]]] = {
    "unreadable": ("is unreadable", "are unreadable"),
    "zero": ("has patches of zeros", "have patches of zeros"),
    "constant": ("is constant", "are constant"),
    "saturated": ("is saturated", "are saturated"),
    "impossible attention": ("has an impossible E_a", "have an impossible E_a"),
    "index": ("does not match the index", "do not match the index"),
    "equal rows": ("equals another one", "equal another one"),
    "far from all others": ("is far from all others", "are far from all others"),
}
"""Each kind of flaw as said of one row, and of several."""
_ON_LOG_SCALE: Final = ("norm", "norm_range")


def find_equal_rows(store: TeacherStore) -> dict[int, int]:
    """Rows that equal the row of an image with other pixels: position -> position of the first one that it equals.

    They are found by the digests in the index, so all rows of the store are compared and none is read.

    Two files with the same pixels have equal rows too; they are not counted.
    """
    columns = index_values(store, ["sha256", "pixel_hash"])
    digests, pixels = columns["sha256"], columns["pixel_hash"]
    first: dict[str, int] = {}
    partners: dict[int, int] = {}
    for position, digest in enumerate(digests):
        earlier = first.setdefault(digest, position)
        if earlier != position and pixels[position] != pixels[earlier]:
            partners[position] = earlier
            partners.setdefault(earlier, position)
    return partners


def with_comparisons(rows: Sequence[RowSummary], equal: dict[int, int], store: TeacherStore) -> list[RowSummary]:
    """Add the flaws of rows that show only beside others."""
    numbers = index_values(store, ["row"])["row"]
    far = far_from_others(rows)
    compared = []
    for row in rows:
        flaws = list(row.flaws)
        if row.position in equal and not any(flaw.kind in BROKEN for flaw in flaws):
            other = int(numbers[equal[row.position]])
            flaws.append(Flaw("equal rows", f"equal to row {other}, which is of another image"))
        if row.position in far:
            flaws.append(Flaw("far from all others", far[row.position]))
        compared.append(replace(row, flaws=tuple(flaws)))
    return compared


def far_from_others(rows: Sequence[RowSummary]) -> dict[int, str]:
    """Position -> which number is far from that of all others; rows that are broken are neither judged nor compared.

    The distance is in robust standard deviations: from the median, over 1.4826 times the median distance from it.
    """
    whole = [row for row in rows if not any(flaw.kind in BROKEN for flaw in row.flaws)]
    if len(whole) < FEWEST_TO_COMPARE:
        return {}
    found: dict[int, tuple[float, str]] = {}
    for name, words in _NUMBERS.items():
        values = np.array([_scaled(name, getattr(row, name)) for row in whole])
        for row, value, distance in zip(whole, values, robust_distances(values), strict=True):
            if distance > max(_FAR, found.get(row.position, (0.0, ""))[0]):
                shown, middle = _unscaled(name, value), _unscaled(name, float(np.nanmedian(values)))
                text = f"{words} is {shown:.4g}, that of the others {middle:.4g} ({distance:.0f} robust deviations)"
                found[row.position] = (float(distance), text)
    return {position: text for position, (_, text) in found.items()}


def is_far(row: RowSummary) -> bool:
    """Whether a row is far from all others."""
    return any(flaw.kind == "far from all others" for flaw in row.flaws)


def robust_distances(values: np.ndarray) -> np.ndarray:
    """|value - median| / (1.4826 median |value - median|), 0 for nan; all zero if most values are equal."""
    gaps = np.abs(values - np.nanmedian(values)) if np.isfinite(values).any() else np.zeros_like(values)
    scale = 1.4826 * float(np.nanmedian(gaps))
    return np.nan_to_num(gaps / scale, nan=0.0) if scale > 0 else np.zeros_like(values)


def count_flaws(rows: Sequence[RowSummary]) -> dict[str, int]:
    """Rows with each kind of flaw, most frequent first, then by the first row that has it."""
    kinds = [kind for row in rows for kind in dict.fromkeys(flaw.kind for flaw in row.flaws)]
    return {str(kind): kinds.count(kind) for kind in sorted(dict.fromkeys(kinds), key=lambda kind: -kinds.count(kind))}


def broken_rows(rows: Sequence[RowSummary]) -> list[RowSummary]:
    """The rows with a flaw that no sound row has."""
    return [row for row in rows if any(flaw.kind in BROKEN for flaw in row.flaws)]


def largest_unseen_share(rows: int) -> float:
    """The share of flawed rows at which a random sample of `rows` has at least one with a probability of 95 %."""
    return float(1 - 0.05 ** (1 / rows))


def named_flaws(counts: dict[str, int]) -> str:
    """The numbers of flawed rows as part of a sentence."""
    return ", ".join(f"{counted(number, 'row')} {_VERBS[kind][number != 1]}" for kind, number in counts.items())


def _scaled(name: str, value: float) -> float:
    return math.log(value) if name in _ON_LOG_SCALE and value > 0 else value


def _unscaled(name: str, value: float) -> float:
    return math.exp(value) if name in _ON_LOG_SCALE else value
