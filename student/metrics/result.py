"""Results of metrics: sums that a bootstrap can resample, or the reason why a metric is absent.

A metric over many questions is a function of sums over them: a mean is (sum of values, number of questions), a corpus
BLEU is clipped matches and lengths, an F1 is counts of hits and errors. Stored for each question, these sums give the
metric of any resampling of the questions without scoring answers again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

Combine = Callable[[Float[np.ndarray, "*draws k"]], Float[np.ndarray, "*draws"]]
"""Sums over questions, for one or many draws -> the metric of each draw; nan if nothing was scored."""


@dataclass(frozen=True, kw_only=True, eq=False)
class MetricResult:
    """One metric over the questions of a run, in their order. Higher is better; a perfect score is 1, not 100.

    Raises:
        ValueError: `parts` contains non-finite values.
    """

    name: str
    parts: Float[np.ndarray, "questions k"]
    """Contribution of each question to the sums. A row of zeros is a question that this metric does not score; if a
    scored question can have only zeros (no label, none predicted), one column counts questions."""
    combine: Combine

    def __post_init__(self) -> None:
        if not np.isfinite(self.parts).all():
            raise ValueError(f"{self.name}: parts contain NaN or infinite values")

    @property
    def scored(self) -> Bool[np.ndarray, " questions"]:
        """Which questions are scored."""
        return np.asarray(self.parts.any(axis=1))

    @property
    def value(self) -> float | None:
        """The metric over all questions; `None` if none is scored."""
        if not self.scored.any():
            return None
        return float(self.combine(self.parts.sum(axis=0)))


@dataclass(frozen=True, kw_only=True, slots=True)
class AbsentMetric:
    """A metric that could not be computed: tables show the reason, never a zero."""

    name: str
    reason: str


def mean_result(
    name: str, values: Sequence[float | None], weights: Float[np.ndarray, " questions"] | None = None
) -> MetricResult:
    """Mean of one value per question; questions with `None` or nan are not scored."""
    array = np.array([np.nan if value is None else value for value in values], dtype=float)
    scored = np.isfinite(array)
    weight = np.where(scored, 1.0 if weights is None else weights, 0.0)
    parts = np.stack([np.where(scored, array, 0.0) * weight, weight], axis=1)
    return MetricResult(name=name, parts=parts, combine=ratio)


def ratio(sums: Float[np.ndarray, "*draws 2"]) -> Float[np.ndarray, "*draws"]:
    """First sum divided by the second; nan if the second is 0."""
    total = sums[..., 1]
    quotient = np.full(total.shape, np.nan)
    np.divide(sums[..., 0], total, out=quotient, where=total != 0)
    return quotient
