"""Differences between two arms that were trained with the same seeds: paired over training sets, images, or both.

A seed stands for a training set, the order of training and initial values. Three intervals answer three questions:
`seeds` would other training sets give the same difference on these test images; `images` would other test images, with
these trained students; `both` draws both. All pair the arms: the same seeds and the same images on both sides.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import stdev

import numpy as np

from ...student.metrics.result import MetricResult
from ..evaluation.statistics import (
    Array,
    Difference,
    bootstrap_difference,
    bootstrap_interval,
    crossed_interval,
    randomization_test,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class SeedValue:
    """One metric of one arm."""

    value: float
    """Mean over seeds."""
    low: float
    """Of the 95 % interval over seeds; NaN with one seed."""
    high: float
    spread: float | None
    """Standard deviation between seeds; None if there is only one."""
    seeds: tuple[float, ...]
    """The value of each seed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SeedDifference:
    """The difference of two arms in one metric, `arm - against`, with intervals of 95 %."""

    seeds: Difference
    images: Difference
    both: Difference
    p: float | None
    """Two-sided p of the randomization test that exchanges the arms seed by seed; None with one seed."""
    each: tuple[float, ...]
    """The difference of each seed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Resampling:
    """How intervals are computed."""

    seed: int
    resamples: int


def seed_value(results: Sequence[MetricResult], resampling: Resampling) -> SeedValue | None:
    """The mean of one arm over its seeds; None if nothing is scored."""
    joined, of_seed = _joined(results), _of_seed(results)
    found = bootstrap_interval(joined, of_seed, seed=resampling.seed, resamples=resampling.resamples)
    values = [result.value for result in results]
    if found is None or joined.value is None or None in values:
        return None
    seeds = tuple(value for value in values if value is not None)
    return SeedValue(
        value=joined.value,
        low=found.low,
        high=found.high,
        spread=stdev(seeds) if len(seeds) > 1 else None,
        seeds=seeds,
    )


def seed_difference(
    before: Sequence[MetricResult], after: Sequence[MetricResult], images: Sequence[str], resampling: Resampling
) -> SeedDifference | None:
    """Compare two arms; the lists have one result per seed, in the same order, over the same questions.

    `images` has the image of each question. None if nothing is scored.

    Raises:
        ValueError: The arms have different numbers of seeds.
    """
    if len(before) != len(after):
        raise ValueError(f"{len(before)} seeds, but {len(after)}")
    sides, of_seed = (_joined(before), _joined(after)), _of_seed(before)
    seed, resamples = resampling.seed, resampling.resamples
    over_seeds = bootstrap_difference(*sides, of_seed, seed=seed, resamples=resamples)
    over_images = bootstrap_difference(*sides, list(images) * len(before), seed=seed, resamples=resamples)
    if over_seeds is None or over_images is None:
        return None
    parts = np.stack([np.concatenate([b.parts, a.parts], axis=1) for b, a in zip(before, after, strict=True)])
    k, combine = before[0].parts.shape[1], before[0].combine

    def gap(sums: Array) -> Array:
        return np.asarray(combine(sums[:, k:]) - combine(sums[:, :k]))

    crossed = crossed_interval(gap, parts, images, seed=seed, resamples=resamples)
    both = Difference(mean=over_seeds.mean, low=crossed.low, high=crossed.high)
    each = tuple(_gap(one, other) for one, other in zip(before, after, strict=True))
    p = randomization_test(*sides, of_seed, seed=resampling.seed) if len(before) > 1 else None
    return SeedDifference(seeds=over_seeds, images=over_images, both=both, p=p, each=each)


def _gap(before: MetricResult, after: MetricResult) -> float:
    return math.nan if before.value is None or after.value is None else after.value - before.value


def _joined(results: Sequence[MetricResult]) -> MetricResult:
    """The questions of all seeds, one seed after the other."""
    first = results[0]
    return MetricResult(
        name=first.name, parts=np.concatenate([result.parts for result in results]), combine=first.combine
    )


def _of_seed(results: Sequence[MetricResult]) -> list[str]:
    """The number of the seed of each question of `_joined`."""
    return [str(number) for number, result in enumerate(results) for _ in range(len(result.parts))]
