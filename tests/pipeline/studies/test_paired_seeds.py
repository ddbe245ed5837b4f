"""Differences over seeds, images, and both, against slow versions written from their definitions."""

import math
from collections import defaultdict
from statistics import NormalDist, mean, stdev

import numpy as np
import pytest
from medalign.pipeline.evaluation.statistics import crossed_interval, student_t
from medalign.pipeline.studies.paired_seeds import Resampling, seed_difference, seed_value
from medalign.student.metrics.result import mean_result

SEEDS, IMAGES, EACH = 5, 12, 3
RESAMPLING = Resampling(seed=3, resamples=400)


@pytest.fixture(scope="module")
def scores():
    """[arms, seeds, questions], with effects of arm, seed and image; some questions are not scored."""
    generator = np.random.default_rng(0)
    image = np.repeat(generator.normal(0, 0.3, IMAGES), EACH)
    values = image + generator.normal(0, 0.2, (2, SEEDS, 1)) + generator.normal(0, 0.3, (2, SEEDS, IMAGES * EACH))
    values[1] += 0.4
    values[:, :, 7] = np.nan
    return values


@pytest.fixture(scope="module")
def images():
    return [f"image {number // EACH}" for number in range(IMAGES * EACH)]


def results(values):
    return [mean_result("score", list(row)) for row in values]


def slow_draws(before, after, images, seed, resamples):
    """The difference of the means of each draw of seeds and images, question by question; and of each alone."""
    names = sorted(set(images))
    of_image = defaultdict(list)
    for number, image in enumerate(images):
        of_image[image].append(number)
    generator = np.random.default_rng(seed)
    image_times = generator.multinomial(len(names), [1 / len(names)] * len(names), size=resamples)
    seed_times = generator.multinomial(len(before), [1 / len(before)] * len(before), size=resamples)

    def difference(times, weights):
        sides = [
            mean(
                arm[run][question]
                for run, repeats in enumerate(weights)
                for _ in range(repeats)
                for image, copies in zip(names, times, strict=True)
                for _ in range(copies)
                for question in of_image[image]
                if not math.isnan(arm[run][question])
            )
            for arm in (before, after)
        ]
        return sides[1] - sides[0]

    every_image, every_seed = [1] * len(names), [1] * len(before)
    for times, weights in zip(image_times, seed_times, strict=True):
        yield difference(times, weights), difference(every_image, weights), difference(times, every_seed)


def slow_interval(value, draws, of_seeds, of_images, seeds, images):
    """Satterthwaite's degrees of freedom, and the percentile interval; with fewer than 10 units at least Student's."""
    degrees = int((of_seeds + of_images) ** 2 / (of_seeds**2 / (seeds - 1) + of_images**2 / (images - 1)))
    factor = student_t(0.975, degrees) * math.sqrt((degrees + 1) / degrees)
    low, high = np.quantile(draws, [NormalDist().cdf(-factor), NormalDist().cdf(factor)])
    reach = factor * draws.std()
    return degrees, min(low, value - reach), max(high, value + reach)


def test_the_interval_over_both_is_that_of_slow_draws(scores, images):
    few, n_images = scores[:, :, : 4 * EACH], 4
    found = seed_difference(*map(results, few), images[: n_images * EACH], Resampling(seed=3, resamples=120))
    draws, of_seeds, of_images = np.array(list(slow_draws(*few.tolist(), images[: n_images * EACH], 3, 120))).T
    value = np.nanmean(few[1]) - np.nanmean(few[0])
    degrees, low, high = slow_interval(value, draws, of_seeds.var(), of_images.var(), SEEDS, n_images)
    assert n_images - 1 <= degrees < SEEDS - 1 + n_images - 1
    assert found.both.mean == pytest.approx(value)
    assert (found.both.low, found.both.high) == (pytest.approx(low), pytest.approx(high))


def test_intervals_over_seeds_are_students_or_wider(scores, images):
    found = seed_difference(*map(results, scores), images, RESAMPLING)
    each = [np.nanmean(after) - np.nanmean(before) for before, after in zip(*scores, strict=True)]
    assert found.each == pytest.approx(each)
    assert found.seeds.mean == pytest.approx(mean(each))
    reach = student_t(0.975, SEEDS - 1) * stdev(each) / math.sqrt(SEEDS)
    assert found.seeds.high - found.seeds.mean >= 0.9 * reach  # the bootstrap's deviation varies with its draws
    value = seed_value(results(scores[1]), RESAMPLING)
    assert value.value == pytest.approx(mean(np.nanmean(row) for row in scores[1]))
    assert value.spread == pytest.approx(stdev(np.nanmean(row) for row in scores[1]))


def test_what_is_drawn_twice_varies_more(scores, images):
    found = seed_difference(*map(results, scores), images, RESAMPLING)
    widths = {name: getattr(found, name).high - getattr(found, name).low for name in ("seeds", "images", "both")}
    assert widths["both"] > widths["seeds"]
    assert widths["both"] > widths["images"]
    constant = np.broadcast_to(scores[:, :1], scores.shape)
    same = seed_difference(*map(results, constant), images, RESAMPLING)
    assert same.seeds.low == pytest.approx(same.seeds.high)
    assert same.images.high - same.images.low > 0.01


def test_p_counts_exchanges_of_seeds(scores, images):
    """All 2^5 exchanges; the arms differ by about .4 with a deviation of about .3 between seeds."""
    found = seed_difference(*map(results, scores), images, RESAMPLING)
    each = np.array(found.each)
    signs = np.array(np.meshgrid(*[[1, -1]] * SEEDS)).reshape(SEEDS, -1)
    as_large = np.abs((each[:, None] * signs).mean(axis=0)) >= abs(each.mean()) - 1e-12
    assert found.p == pytest.approx(as_large.mean())


def test_one_seed_has_images_only(scores, images):
    found = seed_difference(*map(results, scores[:, :1]), images, RESAMPLING)
    assert found.p is None
    assert math.isnan(found.seeds.low)
    assert math.isnan(found.both.high)
    assert found.images.low < found.images.mean < found.images.high
    with pytest.raises(ValueError, match="1 seeds, but 2"):
        seed_difference(results(scores[0, :1]), results(scores[1, :2]), images, RESAMPLING)
    nothing = results(np.full((2, 2, len(images)), np.nan)[0])
    assert seed_difference(nothing, nothing, images, RESAMPLING) is None


def test_images_without_a_scored_question_do_not_count():
    parts = np.zeros((2, 3, 2))
    parts[:, :2, 0], parts[:, :2, 1] = [[1, 0], [0, 1]], 1

    def gap(sums):
        return sums[:, 0] / sums[:, 1]

    with_empty = crossed_interval(gap, parts, ["a", "b", "c"], seed=0, resamples=100)
    assert with_empty == crossed_interval(gap, parts[:, :2], ["a", "b"], seed=0, resamples=100)


@pytest.mark.parametrize(("of_seeds", "of_images"), [(1.0, 0.1), (0.1, 1.0)])
def test_a_gap_may_be_any_function_of_the_sums(of_seeds, of_images):
    """A plain sum, which does not stay the same if all sums are scaled; seeds or images vary more."""
    generator = np.random.default_rng(5)
    parts = generator.normal(1.0, 0.5, (4, 6, 1))
    parts += generator.normal(0, of_seeds, (4, 1, 1)) + generator.normal(0, of_images, (1, 6, 1))
    found = crossed_interval(lambda sums: sums[:, 0], parts, [str(n) for n in range(6)], seed=0, resamples=200)
    generator = np.random.default_rng(0)
    image_times, repeat_times = (generator.multinomial(n, [1 / n] * n, size=200) for n in (6, 4))

    def drawn(times, weights):
        return sum(times[i] * weights[r] * parts[r, i, 0] for r in range(4) for i in range(6))

    both, s, i = (
        np.array([drawn(times, weights) for times, weights in pairs])
        for pairs in (
            zip(image_times, repeat_times, strict=True),
            [([1] * 6, weights) for weights in repeat_times],
            [(times, [1] * 4) for times in image_times],
        )
    )
    _, low, high = slow_interval(parts.sum(), both, s.var(), i.var(), 4, 6)
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
