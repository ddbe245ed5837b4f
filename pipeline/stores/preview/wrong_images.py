"""Which rows belong to another image: each row's own image against every other one of the sample.

Row i is y_i = p_i + e_i: the prediction from its image, and what the fit leaves. If rows i and k were exchanged, the
inner product of y_i - y_k and p_i - p_k, which is |p_i - p_k|^2 plus noise for correct rows, is negative. How large the
noise is in that direction is measured on all other rows, so rows of similar images are not taken for exchanged ones:
there, the test has no power and raises no alarm. Limits are those of Student's t for as many tests as there are pairs.
"""

from dataclasses import dataclass
from statistics import NormalDist
from typing import Final, Literal

import numpy as np
from jaxtyping import Float

from .image_fit import PairScores

FEWEST_ROWS: Final = 50
"""Rows from which single rows are judged."""
FALSE_ALARMS: Final = 0.01
"""Probability that any correct row of a sample is listed."""

_TINY: Final = 1e-12

Mismatch = Literal["exchanged", "of another image", "not of its image"]


@dataclass(frozen=True, slots=True)
class WrongRow:
    """A row that does not belong to its image; indices count the compared rows."""

    index: int
    kind: Mismatch
    other: int | None
    """The row with whose image it was exchanged, or whose image it fits better; None if no image of the sample fits."""
    distance: float
    """How far beyond zero, in standard deviations of the noise."""


def find_wrong_rows(scores: PairScores) -> list[WrongRow]:
    """Rows that fit another image of the sample, or the average image, significantly better than their own.

    A row is listed once. Empty for fewer than `FEWEST_ROWS` rows.
    """
    if scores.trusted.sum() < FEWEST_ROWS:
        return []
    found = _exchanged(scores)
    found += [row for row in _of_another(scores) if row.index not in {one.index for one in found}]
    found += [row for row in _of_none(scores) if row.index not in {one.index for one in found}]
    return sorted(found, key=lambda row: row.index)


def visible_exchanges(scores: PairScores) -> float:
    """The share of pairs of rows whose exchange `find_wrong_rows` would list; nan if it judges no rows.

    An exchange changes the sign of a pair's distance, up to noise.
    """
    count = len(scores.products)
    if scores.trusted.sum() < FEWEST_ROWS:
        return float("nan")
    return float((_exchange_distance(scores)[np.triu_indices(count, 1)] > _exchange_limit(scores)).mean())


def _exchanged(scores: PairScores) -> list[WrongRow]:
    distance, limit, gain = _exchange_distance(scores), _exchange_limit(scores), _gain(scores)
    is_mutual = (gain > 0) & (gain.T > 0)  # else only one of the two rows is wrong
    pairs = [(distance[i, k], int(i), int(k)) for i, k in np.argwhere((distance < -limit) & is_mutual) if i < k]
    found: dict[int, WrongRow] = {}
    for value, i, k in sorted(pairs):
        if i not in found and k not in found:
            found[i] = WrongRow(i, "exchanged", k, float(-value))
            found[k] = WrongRow(k, "exchanged", i, float(-value))
    return list(found.values())


def _exchange_distance(scores: PairScores) -> Float[np.ndarray, "row image"]:
    """[i, k]: (y_i - y_k) . (p_i - p_k) in standard deviations; the diagonal is 0."""
    own, noise = np.diag(scores.products), _noise(scores)
    difference = own[:, None] + own[None] - scores.products - scores.products.T
    return np.asarray(difference / np.sqrt(np.square(noise) + np.square(noise.T)))


def _of_another(scores: PairScores) -> list[WrongRow]:
    count = len(scores.products)
    distance = _gain(scores) / _noise(scores)
    limit = _t_limit(FALSE_ALARMS / 3 / (count * (count - 1)), _freedom(scores))
    best = distance.argmax(axis=1)
    return [
        WrongRow(i, "of another image", int(k), float(distance[i, k]))
        for i, k in enumerate(best)
        if distance[i, k] > limit
    ]


def _gain(scores: PairScores) -> Float[np.ndarray, "row image"]:
    """[i, k]: half of how much closer row i is to the prediction from image k than to that from its own."""
    own, size = np.diag(scores.products)[:, None], np.diag(scores.sizes)[:, None]
    return np.asarray(scores.products - own - (scores.sizes - size) / 2)


def _of_none(scores: PairScores) -> list[WrongRow]:
    count, used = len(scores.products), scores.trusted
    size, along = np.diag(scores.sizes), np.diag(scores.residual_products)
    total = np.square(scores.residual_products[used]).sum(axis=0) - used * np.square(along)
    noise = np.sqrt(total / (used.sum() - used - 1))
    distance = (np.diag(scores.products) - size / 2) / np.maximum(noise * scores.unrest, _TINY)
    limit = _t_limit(FALSE_ALARMS / 3 / count, _freedom(scores))
    return [WrongRow(i, "not of its image", None, float(-value)) for i, value in enumerate(distance) if value < -limit]


def _noise(scores: PairScores) -> Float[np.ndarray, "row image"]:
    """[i, k]: standard deviation of e . (p_k - p_i), measured on all rows but i and k, for a row as noisy as i."""
    left, used = scores.residual_products, scores.trusted
    squares = left[used].T @ left[used]
    own = used[:, None] * np.square(np.diag(left)[:, None] - left)
    total = np.diag(squares)[:, None] + np.diag(squares)[None] - 2 * squares - own - own.T
    freedom = used.sum() - used[:, None] - used[None] - 1.0
    return np.asarray(np.sqrt(np.maximum(total / freedom, _TINY)) * scores.unrest[:, None])


def _exchange_limit(scores: PairScores) -> float:
    count = len(scores.products)
    return _t_limit(FALSE_ALARMS / 3 / (count * (count - 1) / 2), _freedom(scores))


def _freedom(scores: PairScores) -> int:
    """Degrees of freedom of the noise."""
    return int(scores.trusted.sum()) - 3


def _t_limit(probability: float, freedom: int) -> float:
    """The value that Student's t exceeds with a small probability (Abramowitz and Stegun 26.7.5, three terms)."""
    z = NormalDist().inv_cdf(1 - probability)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3
