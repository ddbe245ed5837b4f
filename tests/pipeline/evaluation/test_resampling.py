"""Quantiles of Student's t against the incomplete beta function, and resampling in parts of any size."""

import mpmath
import numpy as np
import pytest
from medalign.pipeline.evaluation import statistics
from medalign.pipeline.evaluation.statistics import Difference, student_t


class ExactNormal:
    """Quantiles with as many digits as mpmath has, so that all arithmetic on them has them too."""

    def inv_cdf(self, probability):
        return mpmath.sqrt(2) * mpmath.erfinv(2 * mpmath.mpf(probability) - 1)


def exact_t(probability, degrees):
    """The t with P(|T| > t) = 2 (1 - p), which is I_x(n / 2, 1 / 2) at x = n / (n + t^2)."""
    n, tail = mpmath.mpf(degrees), 2 * (1 - mpmath.mpf(probability))

    def excess(t):
        return mpmath.betainc(n / 2, mpmath.mpf(1) / 2, 0, n / (n + t * t), regularized=True) - tail

    return mpmath.findroot(excess, (mpmath.mpf(1) / 100, mpmath.mpf(50)), solver="ridder", maxsteps=200)


@pytest.mark.parametrize("degrees", [1, 2])
def test_quantiles_of_one_and_two_degrees_are_exact(degrees):
    for probability in (0.6, 0.9, 0.975):
        assert student_t(probability, degrees) == pytest.approx(float(exact_t(probability, degrees)), rel=1e-12)


@pytest.mark.parametrize("probability", [0.8, 0.975])
def test_the_series_has_the_right_coefficients(probability, monkeypatch):
    """Its error falls with the fifth power of the degrees of freedom, so n^5 times the error hardly depends on n."""
    monkeypatch.setattr(statistics, "NormalDist", ExactNormal)
    with mpmath.workdps(60):
        first, second = (n**5 * (exact_t(probability, n) - student_t(probability, n)) for n in (3_000, 30_000))
        assert abs(second / first - 1) < 0.01


@pytest.mark.parametrize(("low", "high", "beyond"), [(-0.1, 0.5, False), (0.1, 0.5, True), (-0.5, -0.1, True)])
def test_a_difference_is_beyond_noise_if_its_interval_excludes_zero(low, high, beyond):
    assert Difference(mean=0.0, low=low, high=high).beyond_noise is beyond


@pytest.mark.parametrize("bound", [0.0, -0.0])
def test_an_interval_that_ends_at_zero_contains_it(bound):
    assert not Difference(mean=0.2, low=bound, high=0.5).beyond_noise
    assert not Difference(mean=-0.2, low=-0.5, high=bound).beyond_noise


@pytest.mark.parametrize("cells", [1, 10, 28, 29, 10_000])
def test_parts_of_any_size_give_the_same_draws(cells, monkeypatch):
    sums = np.arange(8.0).reshape(4, 2)
    drawn, exchanges = statistics._drawn(sums, 3, 7), statistics._random_exchanges(sums, 3, 7)
    monkeypatch.setattr(statistics, "_CELLS", cells)
    np.testing.assert_array_equal(statistics._drawn(sums, 3, 7), drawn)
    again = statistics._random_exchanges(sums, 3, 7)
    assert again.shape == exchanges.shape == (7, 2)
    assert drawn.shape == (7, 2)


def test_draws_are_sums_over_as_many_images_with_replacement():
    """Every image has the same chance in each draw; a column of ones counts the images of a draw."""
    draws = statistics._drawn(np.column_stack([np.ones(5), np.eye(5)]), 1, 4000)
    np.testing.assert_array_equal(draws[:, 0], 5)
    np.testing.assert_array_equal(draws[:, 1:].sum(axis=1), 5)
    np.testing.assert_allclose(draws[:, 1:].mean(axis=0), 1, atol=0.07)
    np.testing.assert_allclose(draws[:, 1:].var(axis=0), 0.8, atol=0.08)  # binomial: n (1 / n) (1 - 1 / n)


def test_exchanges_move_each_image_in_half_of_the_rounds():
    moved = statistics._random_exchanges(np.eye(5), 1, 4000)
    assert set(np.unique(moved)) == {0.0, 1.0}
    np.testing.assert_allclose(moved.mean(axis=0), 0.5, atol=0.04)
    assert abs(np.corrcoef(moved.T) - np.eye(5)).max() < 0.06
