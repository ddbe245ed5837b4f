"""Is a difference between two students more than the choice of test images?"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """Mean of `after - before` over the same questions, with a 95 % interval."""

    mean: float
    low: float
    high: float

    @property
    def beyond_noise(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


def paired_difference(
    before: Sequence[float], after: Sequence[float], groups: Sequence[str], *, seed: int, resamples: int = 2000
) -> Difference:
    """Percentile bootstrap of the mean paired difference.

    Whole groups (all questions about one image) are drawn together, because answers about one image are not
    independent. A pair with nan on either side is left out.

    Raises:
        ValueError: the sequences differ in length or no pair is left.
    """
    gaps = np.asarray(after, dtype=float) - np.asarray(before, dtype=float)
    if len(gaps) != len(groups):
        raise ValueError(f"{len(gaps)} differences, but {len(groups)} groups")
    kept = np.isfinite(gaps)
    if not kept.any():
        raise ValueError("there is no pair to compare")
    names, group = np.unique(np.asarray(groups)[kept], return_inverse=True)
    sums = np.bincount(group, weights=gaps[kept])
    counts = np.bincount(group)
    drawn = np.random.default_rng(seed).integers(len(names), size=(resamples, len(names)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Difference(mean=float(gaps[kept].mean()), low=float(low), high=float(high))
