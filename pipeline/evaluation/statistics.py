"""Significance of a difference between two students, with respect to the choice of test images.

Questions about one image are not independent, so the image is the unit: the bootstrap resamples whole images, and the
randomization test exchanges whole images.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from statistics import NormalDist
from typing import Any

import numpy as np

from ...student.metrics.result import MetricResult, mean_result

Array = np.ndarray[Any, np.dtype[np.float64]]
_Index = np.ndarray[Any, np.dtype[np.intp]]

CONFIDENCE = 0.95
FEW_IMAGES = 10
"""With fewer images, intervals are widened (docs/comparison.md)."""
_CELLS = 4_000_000
"""Largest number of values in memory while resampling."""


def few_images_warnings(images: int) -> list[str]:
    """A warning if there are too few images to generalize from."""
    if images >= FEW_IMAGES:
        return []
    about = f"{images} image{'s' if images > 1 else ''}"
    return [
        f"the questions are about {about}, fewer than {FEW_IMAGES}: intervals are widened, and results from so few "
        "images hardly generalize (docs/comparison.md)"
    ]


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A 95 % interval over the choice of images; NaN if fewer than two images are scored."""

    low: float
    high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """`after - before` over the same questions, with a 95 % interval."""

    mean: float
    low: float
    high: float

    @property
    def beyond_noise(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0


def bootstrap_interval(
    result: MetricResult, groups: Sequence[str], *, seed: int, resamples: int = 2000
) -> Interval | None:
    """Percentile bootstrap of a metric over images (`groups`, one name per question); `None`: nothing scored."""
    sums = _group_sums(result.parts, groups)
    if not len(sums):
        return None
    return _interval(float(result.combine(sums.sum(axis=0))), result.combine(_drawn(sums, seed, resamples)), len(sums))


def bootstrap_difference(
    before: MetricResult, after: MetricResult, groups: Sequence[str], *, seed: int, resamples: int = 2000
) -> Difference | None:
    """Paired percentile bootstrap of `after - before`, with the same images for both; `None`: nothing scored."""
    k = before.parts.shape[1]
    sums = _group_sums(np.concatenate([before.parts, after.parts], axis=1), groups)
    if before.value is None or after.value is None:
        return None
    drawn = _drawn(sums, seed, resamples)
    gap = after.value - before.value
    found = _interval(gap, after.combine(drawn[:, k:]) - before.combine(drawn[:, :k]), len(sums))
    return Difference(mean=gap, low=found.low, high=found.high)


def crossed_interval(
    gap: Callable[[Array], Array], parts: Array, groups: Sequence[str], *, seed: int, resamples: int = 2000
) -> Interval:
    """Percentile bootstrap that draws repeats (seeds) and images independently, each with replacement.

    The degrees of freedom of Student's t are Satterthwaite's, from the variances that repeats and images cause alone;
    NaN if there are fewer than two of either.

    Args:
        gap: Sums [draws, k] -> the value of each draw.
        parts: [repeats, questions, k], contributions of the same questions in every repeat.
        groups: The image of each question.
        seed: Of the draws.
        resamples: Number of draws.
    """
    index = _group_index(groups, parts.shape[1])
    sums = np.stack([_every_group_sum(repeat, index) for repeat in parts])
    sums = sums[:, sums.any(axis=(0, 2))]
    repeats, images, _ = sums.shape
    generator = np.random.default_rng(seed)
    image_times, repeat_times = (
        generator.multinomial(number, np.full(number, 1 / number), size=resamples).astype(float)
        for number in (images, repeats)
    )
    drawn = sum(repeat_times[:, one, None] * (image_times @ sums[one]) for one in range(repeats))
    alone = (repeat_times @ sums.sum(axis=1), image_times @ sums.sum(axis=0))
    of_repeats, of_images = (float(np.nanvar(gap(one))) for one in alone)
    degrees = min(repeats, images) - 1
    if degrees > 0 and of_repeats + of_images > 0:
        each = of_repeats**2 / (repeats - 1) + of_images**2 / (images - 1)
        degrees = int((of_repeats + of_images) ** 2 / each)
    return _interval(float(gap(sums.sum(axis=(0, 1))[None])[0]), gap(np.asarray(drawn)), degrees + 1)


def randomization_test(
    before: MetricResult, after: MetricResult, groups: Sequence[str], *, seed: int, rounds: int = 10_000
) -> float | None:
    """Two-sided p of the paired randomization test, which exchanges two systems image by image.

    Under the null hypothesis, the answers of both systems about an image are exchangeable. Each round exchanges them
    for a random subset of the images; p is the fraction of rounds with a difference at least as large. If there are at
    most `rounds` possible exchanges, each is tried once and p is exact; else the observed assignment counts as one of
    the rounds, so p is at least 1 / (rounds + 1). `None`: nothing is scored.
    """
    if before.value is None or after.value is None:
        return None
    both = _group_sums(np.concatenate([before.parts, after.parts], axis=1), groups)
    sums_before, sums_after = np.split(both, 2, axis=1)
    gaps = sums_after - sums_before
    gaps = gaps[gaps.any(axis=1)]  # exchanging equal answers changes nothing
    total_before, total_after = sums_before.sum(axis=0), sums_after.sum(axis=0)
    observed = abs(after.value - before.value)
    exact = len(gaps) < 63 and 2 ** len(gaps) <= rounds
    moved = _all_exchanges(gaps) if exact else _random_exchanges(gaps, seed, rounds)
    differences = np.abs(after.combine(total_after - moved) - before.combine(total_before + moved))
    as_large = int((differences >= observed - 1e-12).sum())
    return as_large / len(moved) if exact else (as_large + 1) / (len(moved) + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (Scand. J. Statist. 1979): p below a level bounds the chance of any false finding."""
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted


def paired_difference(
    before: Sequence[float], after: Sequence[float], groups: Sequence[str], *, seed: int, resamples: int = 2000
) -> Difference:
    """Bootstrap of the mean paired difference of one value per question; pairs with NaN on either side are skipped.

    Raises:
        ValueError: The sequences differ in length, or no pair is left.
    """
    gaps = np.asarray(after, dtype=float) - np.asarray(before, dtype=float)
    if len(gaps) != len(groups):
        raise ValueError(f"{len(gaps)} differences, but {len(groups)} groups")
    result = mean_result("difference", gaps.tolist())
    found = bootstrap_interval(result, groups, seed=seed, resamples=resamples)
    if found is None or result.value is None:
        raise ValueError("no pairs to compare")
    return Difference(mean=result.value, low=found.low, high=found.high)


def pooled(results: Sequence[MetricResult]) -> MetricResult:
    """Pool the results of several runs over the same questions (seeds): the mean of their sums per question.

    For a mean over questions this is the mean over the runs; a corpus metric is computed over the answers of all runs.
    """
    first = results[0]
    parts = np.mean([result.parts for result in results], axis=0)
    return MetricResult(name=first.name, parts=parts, combine=first.combine)


def _group_sums(parts: Array, groups: Sequence[str]) -> Array:
    """[images, k]: sums of `parts` over each image with scored questions."""
    index = _group_index(groups, len(parts))
    sums = _every_group_sum(parts, index)
    return sums[np.isin(np.arange(len(sums)), index[parts.any(axis=1)])]


def _every_group_sum(parts: Array, index: _Index) -> Array:
    """The same for all images, in the order of their numbers."""
    sums = np.zeros((int(index.max(initial=-1)) + 1, parts.shape[1]))
    np.add.at(sums, index, parts)
    return sums


def _group_index(groups: Sequence[str], questions: int) -> _Index:
    """The number of each question's image, in the order of their names."""
    if questions != len(groups):
        raise ValueError(f"{questions} questions, but {len(groups)} groups")
    return np.unique(np.asarray(groups, dtype=object).astype(str), return_inverse=True)[1]


def _drawn(sums: Array, seed: int, resamples: int) -> Array:
    """[resamples, k]: sums over n images drawn with replacement, where n is the number of images."""
    generator, images = np.random.default_rng(seed), len(sums)
    chunk = max(1, _CELLS // images)
    found = []
    for start in range(0, resamples, chunk):
        draws = min(chunk, resamples - start)
        chosen = generator.integers(images, size=(draws, images)) + images * np.arange(draws)[:, None]
        times = np.bincount(chosen.ravel(), minlength=draws * images).reshape(draws, images)
        found.append(times.astype(float) @ sums)
    return np.concatenate(found)


def _interval(value: float, drawn: Array, images: int) -> Interval:
    """Percentiles of resampled values, widened for few images.

    Plain percentiles are too narrow by sqrt((n - 1) / n) and by using the normal instead of Student's t distribution;
    the expanded percentile interval corrects the levels for both (Hesterberg, The American Statistician 2015, section
    5.1). With fewer than `FEW_IMAGES` images there are too few distinct resamples at these levels, so the interval is
    at least as wide as Student's: `value` plus and minus t times the standard error, the standard deviation of the
    resamples with the same correction.
    """
    if images < 2:
        return Interval(low=math.nan, high=math.nan)
    t, correction = student_t(0.5 + CONFIDENCE / 2, images - 1), math.sqrt(images / (images - 1))
    level = NormalDist().cdf(-t * correction)
    low, high = np.nanquantile(drawn, [level, 1 - level])
    if images < FEW_IMAGES:
        reach = t * correction * np.nanstd(drawn)
        low, high = min(low, value - reach), max(high, value + reach)
    return Interval(low=float(low), high=float(high))


def student_t(probability: float, degrees: int) -> float:
    """Quantile of Student's t, from that of the normal (Abramowitz & Stegun 26.7.5); exact for 1 and 2 degrees."""
    if degrees == 1:
        return math.tan(math.pi * (probability - 0.5))
    if degrees == 2:
        return (2 * probability - 1) / math.sqrt(2 * probability * (1 - probability))
    z, n = NormalDist().inv_cdf(probability), float(degrees)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / n**power for power, term in enumerate(terms, start=1))


def _all_exchanges(gaps: Array) -> Array:
    """[2^images, k]: the sum that each possible exchange moves from one side to the other."""
    if not len(gaps):
        return np.zeros((1, gaps.shape[1]))
    return np.array(list(product((0.0, 1.0), repeat=len(gaps)))) @ gaps


def _random_exchanges(gaps: Array, seed: int, rounds: int) -> Array:
    generator = np.random.default_rng(seed)
    chunk = max(1, _CELLS // len(gaps))
    found = [
        generator.integers(2, size=(min(chunk, rounds - start), len(gaps)), dtype=np.int8).astype(float) @ gaps
        for start in range(0, rounds, chunk)
    ]
    return np.concatenate(found)
