"""Results of metrics."""

import numpy as np
import pytest
from medalign.student.metrics.result import MetricResult, mean_result, ratio


def test_a_mean_ignores_unscored_questions():
    found = mean_result("recall", [1.0, None, 0.0, float("nan")])
    assert found.value == 0.5
    assert found.scored.tolist() == [True, False, True, False]


def test_the_mean_of_no_questions_is_absent_not_zero():
    assert mean_result("recall", [None, None]).value is None
    assert mean_result("recall", []).value is None


def test_weighted_mean():
    assert mean_result("recall", [1.0, 0.0], np.array([3.0, 1.0])).value == 0.75


def test_many_draws_are_combined_at_once():
    sums = np.array([[1.0, 2.0], [3.0, 4.0], [0.0, 0.0]])
    np.testing.assert_array_equal(ratio(sums), [0.5, 0.75, np.nan])
    assert float(ratio(sums[0])) == 0.5


def test_parts_must_be_finite():
    with pytest.raises(ValueError, match="NaN or infinite"):
        MetricResult(name="x", parts=np.array([[np.nan, 1.0]]), combine=ratio)
