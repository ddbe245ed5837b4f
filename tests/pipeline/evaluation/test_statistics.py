"""Intervals cover, tests keep their level, and both agree with slow versions of the same mathematics."""

import math
from itertools import chain, combinations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from medalign.pipeline.evaluation.statistics import (
    bootstrap_difference,
    bootstrap_interval,
    holm,
    paired_difference,
    pooled,
    randomization_test,
    student_t,
)
from medalign.student.metrics.result import MetricResult, mean_result


def f1(sums):
    """F1 of (hits, false alarms, misses): no mean over questions."""
    return 2 * sums[..., 0] / (2 * sums[..., 0] + sums[..., 1] + sums[..., 2])


def counts(rows):
    return MetricResult(name="f1", parts=np.array(rows, dtype=float), combine=f1)


def test_a_constant_gap_has_no_spread():
    before = [0.1, 0.5, 0.2, 0.9]
    found = paired_difference(before, [value + 0.25 for value in before], list("aabb"), seed=0)
    assert (found.mean, found.low, found.high) == pytest.approx((0.25, 0.25, 0.25))
    assert found.beyond_noise


def test_interval_of_independent_gaps_is_the_normal_one():
    gaps = np.random.default_rng(1).normal(0.0, 1.0, 400)
    found = paired_difference(np.zeros(400), gaps, [str(i) for i in range(400)], seed=0, resamples=20_000)
    half = 1.966 * gaps.std(ddof=1) / 20
    assert found.low == pytest.approx(gaps.mean() - half, abs=0.004)
    assert found.high == pytest.approx(gaps.mean() + half, abs=0.004)


def test_repeating_a_question_about_an_image_does_not_narrow_the_interval():
    gaps = np.random.default_rng(2).normal(0.0, 1.0, 50)
    names = [str(i) for i in range(50)]
    once = paired_difference(np.zeros(50), gaps, names, seed=0)
    often = paired_difference(np.zeros(500), np.repeat(gaps, 10), np.repeat(names, 10), seed=0)
    assert often.low == pytest.approx(once.low)
    assert often.high == pytest.approx(once.high)


def test_intervals_have_2000_resamples_as_docs_say():
    values = np.random.default_rng(3).normal(0.0, 1.0, 40)
    names = [str(i) for i in range(40)]
    result = mean_result("m", values.tolist())
    assert bootstrap_interval(result, names, seed=0) == bootstrap_interval(result, names, seed=0, resamples=2000)
    found = paired_difference(np.zeros(40), values, names, seed=0)
    assert found == paired_difference(np.zeros(40), values, names, seed=0, resamples=2000)
    assert bootstrap_interval(result, names, seed=0) != bootstrap_interval(result, names, seed=0, resamples=2001)


def test_undefined_pairs_are_left_out():
    found = paired_difference([0.0, float("nan"), 0.0], [1.0, 5.0, 1.0], list("abc"), seed=0)
    assert found.mean == 1.0
    with pytest.raises(ValueError, match="no pair"):
        paired_difference([float("nan")], [1.0], ["a"], seed=0)
    with pytest.raises(ValueError, match="2 differences, but 1 groups"):
        paired_difference([0.0, 0.0], [1.0, 1.0], ["a"], seed=0)


def test_an_interval_draws_whole_images_and_combines_their_sums():
    """Against drawing names one by one and collecting their questions, for a metric that is no mean."""
    generator = np.random.default_rng(3)
    groups = generator.choice(list("abcdefgh"), 60)
    result = counts(generator.integers(0, 4, (60, 3)))
    found = bootstrap_interval(result, groups, seed=5, resamples=8000)
    names, values = np.unique(groups), []
    for _ in range(8000):
        drawn = generator.choice(names, len(names))
        rows = np.concatenate([np.flatnonzero(groups == name) for name in drawn])
        values.append(f1(result.parts[rows].sum(axis=0)))
    spread = np.std(values)
    # 8 images: the levels are those of t with 7 degrees, times sqrt(8 / 7): 0.6 % and 99.4 % in place of 2.5 and 97.5.
    # Fewer than 10: as wide at least as Student's, t(0.975, 7) = 2.3646.
    reach = 2.3646 * (8 / 7) ** 0.5 * spread
    value = f1(result.parts.sum(axis=0))
    assert found.low == pytest.approx(min(np.quantile(values, 0.0057), value - reach), abs=0.15 * spread)
    assert found.high == pytest.approx(max(np.quantile(values, 0.9943), value + reach), abs=0.15 * spread)


def test_questions_that_are_not_scored_change_nothing():
    generator = np.random.default_rng(4)
    scores, groups = generator.random(40), [str(i // 2) for i in range(40)]
    plain = bootstrap_interval(mean_result("m", scores.tolist()), groups, seed=0)
    padded = mean_result("m", [*scores, *[None] * 30])
    assert bootstrap_interval(padded, [*groups, *"x" * 30], seed=0) == plain


def test_one_image_has_no_interval_and_no_question_none():
    lone = bootstrap_interval(mean_result("m", [0.0, 1.0]), ["a", "a"], seed=0)
    assert np.isnan([lone.low, lone.high]).all()
    assert bootstrap_interval(mean_result("m", [None]), ["a"], seed=0) is None
    nothing = mean_result("m", [None])
    assert bootstrap_difference(nothing, nothing, ["a"], seed=0) is None
    assert randomization_test(nothing, nothing, ["a"], seed=0) is None


def synthetic(generator, images):
    """Right-or-wrong answers of two systems about images that differ in difficulty, one to six questions each."""
    index = np.repeat(np.arange(images), generator.integers(1, 7, images))
    ease = generator.normal(0.8, 1.0, images)[index]
    answers = [generator.random(len(index)) < 1 / (1 + np.exp(-ease - shift)) for shift in (0.0, 0.3)]
    return index.astype(str), [mean_result("m", answer.astype(float).tolist()) for answer in answers]


def true_values():
    generator = np.random.default_rng(99)
    _, (before, after) = synthetic(generator, 400_000)
    return before.value, after.value


@pytest.mark.parametrize("images", [25, 90])
def test_a_95_percent_interval_covers_95_percent(images):
    """Of 800 test sets drawn from one population, the share whose interval holds the population's value."""
    truth, after_truth = true_values()
    generator = np.random.default_rng(7)
    held = paired = 0
    for trial in range(800):
        groups, (before, after) = synthetic(generator, images)
        single = bootstrap_interval(before, groups, seed=trial, resamples=400)
        gap = bootstrap_difference(before, after, groups, seed=trial, resamples=400)
        held += single.low <= truth <= single.high
        paired += gap.low <= after_truth - truth <= gap.high
    assert 0.93 <= held / 800 <= 0.97
    assert 0.93 <= paired / 800 <= 0.97


@pytest.mark.parametrize("images", [3, 5, 8])
def test_an_interval_from_few_images_covers_as_many(images):
    """Means of normal values, of which Student's interval holds 95 %; percentiles of so few alone hold 75 to 93 %."""
    generator = np.random.default_rng(7)
    groups, held = [str(image) for image in range(images)], 0
    for trial in range(600):
        found = bootstrap_interval(
            mean_result("x", generator.normal(size=images).tolist()), groups, seed=trial, resamples=400
        )
        held += found.low <= 0 <= found.high
    assert 0.93 <= held / 600 <= 0.975


def slow_p(before, after, groups):
    """Every exchange of images by hand."""
    names = sorted(set(groups))
    observed, as_large = abs(f1(after.sum(0)) - f1(before.sum(0))), 0
    for swaps in product((False, True), repeat=len(names)):
        swapped = np.array([swaps[names.index(group)] for group in groups])
        first = np.where(swapped[:, None], after, before).sum(0)
        second = np.where(swapped[:, None], before, after).sum(0)
        as_large += abs(f1(second) - f1(first)) >= observed - 1e-12
    return as_large / 2 ** len(names)


def test_the_randomization_test_is_exact_where_every_exchange_can_be_tried():
    generator = np.random.default_rng(8)
    groups = generator.choice(list("abcdefg"), 20)
    before, after = (generator.integers(1, 5, (20, 3)).astype(float) for _ in range(2))
    found = randomization_test(counts(before), counts(after), groups, seed=0, rounds=200)
    assert found == pytest.approx(slow_p(before, after, groups))
    drawn = randomization_test(counts(before), counts(after), groups, seed=0, rounds=127)
    assert drawn == pytest.approx(found, abs=0.15)
    assert drawn != found
    assert drawn >= 1 / 128


def test_p_is_exact_with_as_many_rounds_as_exchanges():
    """Three images with 2^3 exchanges; of the eight, only the observed one and its mirror image differ as much."""
    before, after = mean_result("m", [0.0, 0.0, 0.0]), mean_result("m", [1.0, 2.0, 4.0])
    assert randomization_test(before, after, list("abc"), seed=0, rounds=8) == 2 / 8
    drawn = [randomization_test(before, after, list("abc"), seed=seed, rounds=7) for seed in range(20)]
    assert {round(8 * p, 9) for p in drawn} <= set(range(1, 9))
    assert len(set(drawn)) > 1, "with fewer rounds they are drawn"


def test_p_of_equal_systems_is_one():
    same = mean_result("m", [0.0, 1.0, 1.0])
    assert randomization_test(same, same, list("abc"), seed=0) == 1.0


def test_the_level_is_kept_under_the_null_hypothesis():
    """Two systems that are exchangeable given the image: p <= 0.05 in about 5 % of test sets, and power elsewhere."""
    generator = np.random.default_rng(9)
    false = found = 0
    for trial in range(600):
        index = np.repeat(np.arange(40), generator.integers(1, 7, 40))
        ease = generator.normal(0.5, 1.0, 40)[index]
        styles = generator.normal(0.0, 1.0, (2, 40))[:, index]  # of an image, so that its answers are correlated
        before, after, better = (
            mean_result("m", (generator.random(len(index)) < 1 / (1 + np.exp(-ease - shift))).astype(float).tolist())
            for shift in (styles[0], styles[1], styles[1] + 1.5)
        )
        groups = index.astype(str)
        false += randomization_test(before, after, groups, seed=trial, rounds=400) <= 0.05
        found += randomization_test(before, better, groups, seed=trial, rounds=400) <= 0.05
    assert 0.03 <= false / 600 <= 0.07
    assert found > 400


@given(st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=6))
def test_holm_is_the_closed_test_of_bonferronis(p_values):
    """A hypothesis is rejected if every set of hypotheses that holds it is, by Bonferroni."""
    places = range(len(p_values))
    sets = list(chain.from_iterable(combinations(places, size) for size in range(1, len(p_values) + 1)))
    expected = [
        min(1.0, max(len(chosen) * min(p_values[i] for i in chosen) for chosen in sets if place in chosen))
        for place in places
    ]
    assert holm(p_values) == pytest.approx(expected)


def test_holm_of_nothing_is_nothing():
    assert holm([]) == []


def test_seeds_are_pooled_question_by_question():
    first, second = mean_result("m", [1.0, 0.0, None]), mean_result("m", [0.0, 0.0, None])
    both = pooled([first, second])
    assert both.value == 0.25
    assert both.scored.tolist() == [True, True, False]
    many = pooled([counts([[1, 0, 1]]), counts([[1, 2, 0]])])
    assert many.value == pytest.approx(4 / (4 + 2 + 1))


@pytest.mark.parametrize(
    ("degrees", "expected"), [(1, 12.7062), (2, 4.3027), (3, 3.1824), (5, 2.5706), (10, 2.2281), (30, 2.0423)]
)
def test_students_t(degrees, expected):
    assert student_t(0.975, degrees) == pytest.approx(expected, rel=2e-3)


def test_runs_are_pooled_by_the_mean_of_their_sums():
    runs = [counts([[1, 0, 2], [3, 1, 0]]), counts([[5, 2, 2], [1, 1, 6]])]
    np.testing.assert_array_equal(pooled(runs).parts, [[3, 1, 2], [2, 1, 3]])


def test_a_side_without_scores_has_no_difference():
    scored, unscored = mean_result("m", [1.0, 0.0]), mean_result("m", [math.nan, math.nan])
    for pair in ((scored, unscored), (unscored, scored), (unscored, unscored)):
        assert bootstrap_difference(*pair, ["a", "b"], seed=0) is None
        assert randomization_test(*pair, ["a", "b"], seed=0) is None
