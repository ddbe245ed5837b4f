"""The paired bootstrap."""

import numpy as np
import pytest
from medalign.pipeline.statistics import paired_difference


def test_a_constant_gap_has_no_spread():
    before = [0.1, 0.5, 0.2, 0.9]
    found = paired_difference(before, [value + 0.25 for value in before], list("aabb"), seed=0)
    assert (found.mean, found.low, found.high) == pytest.approx((0.25, 0.25, 0.25))
    assert found.beyond_noise


def test_interval_of_independent_gaps_is_the_normal_one():
    gaps = np.random.default_rng(1).normal(0.0, 1.0, 400)
    found = paired_difference(np.zeros(400), gaps, [str(i) for i in range(400)], seed=0)
    half = 1.96 * gaps.std() / 20
    assert found.low == pytest.approx(gaps.mean() - half, abs=0.02)
    assert found.high == pytest.approx(gaps.mean() + half, abs=0.02)


def test_repeating_a_question_about_an_image_does_not_narrow_the_interval():
    gaps = np.random.default_rng(2).normal(0.0, 1.0, 50)
    names = [str(i) for i in range(50)]
    once = paired_difference(np.zeros(50), gaps, names, seed=0)
    often = paired_difference(np.zeros(500), np.repeat(gaps, 10), np.repeat(names, 10), seed=0)
    assert often.low == pytest.approx(once.low)
    assert often.high == pytest.approx(once.high)


def test_undefined_pairs_are_left_out():
    found = paired_difference([0.0, float("nan"), 0.0], [1.0, 5.0, 1.0], list("abc"), seed=0)
    assert found.mean == 1.0
    with pytest.raises(ValueError, match="no pair"):
        paired_difference([float("nan")], [1.0], ["a"], seed=0)
    with pytest.raises(ValueError, match="2 differences, but 1 groups"):
        paired_difference([0.0, 0.0], [1.0, 1.0], ["a"], seed=0)
