"""Rows against images as numbers: the fit against a slow one, and what permuted and exchanged rows do to it."""

import math

import numpy as np
import pytest
import torch
from medalign.pipeline.stores.preview import image_fit
from medalign.pipeline.stores.preview.image_fit import fit_images, held_out_agreement, moments_of
from medalign.pipeline.stores.preview.wrong_images import _t_limit, find_wrong_rows, visible_exchanges
from medalign.progress import Silent

ROWS, CELLS, P, Q = 60, 9, 4, 5


def linked(seed: int, noise: float = 1.0, rows: int = ROWS) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows that are mixtures of what the cells of their images show, with noise: [rows, CELLS, Q], [rows, CELLS, P]."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(rows, CELLS, P, generator=generator) + torch.randn(rows, 1, P, generator=generator)
    mixture = torch.randn(P, Q, generator=generator)
    return images @ mixture + noise * torch.randn(rows, CELLS, Q, generator=generator), images


def fitted(rows, images, permutations=0):
    return fit_images(rows, images, 0, Silent(), permutations)


def slow_agreement(rows, images, folds):
    """The agreement of each row with its image, straight from the definition, in float64."""
    agreement = []
    for i in range(len(rows)):
        others = [k for k in range(len(rows)) if folds[k] != folds[i]]
        X, Y = (torch.cat([part[k].double() for k in others]) for part in (images, rows))
        weights = torch.linalg.solve(X.T @ X + 0.1 * len(X) * torch.eye(P).double(), X.T @ Y)
        left = Y - X @ weights
        precision = torch.linalg.inv(left.T @ left / len(X) + 1e-3 * torch.eye(Q).double())
        y, p = rows[i].double(), images[i].double() @ weights
        inner = [float(torch.trace(a @ precision @ b.T)) for a, b in ((y, p), (y, y), (p, p))]
        agreement.append(inner[0] / math.sqrt(inner[1] * inner[2]))
    return np.array(agreement)


def test_agreement_equals_the_slow_definition():
    rows, images = (image_fit._standardized(part) for part in linked(0, rows=15))
    folds = np.random.default_rng(0).permutation(15) % 5
    fast = held_out_agreement(moments_of(rows, images), folds)
    np.testing.assert_allclose(fast, slow_agreement(rows, images, folds), atol=1e-4)
    scores = image_fit._pair_scores(rows, images, folds, np.ones(15, dtype=bool))
    np.testing.assert_allclose(np.diag(scores.agreement), fast, atol=1e-4)


def test_linked_rows_fit_and_permuted_ones_do_not():
    rows, images = linked(1)
    fit = fitted(rows, images, 99)
    assert fit.p_value == 0.01
    assert fit.preferred > 0.95
    assert abs(fit.other) < 0.05
    order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(1))
    assert fitted(rows, images[order], 99).p_value > 0.05


def test_rows_that_are_all_alike_fit_nothing():
    rows, images = linked(2)
    fit = fitted(torch.ones_like(rows), images, 9)
    assert fit.p_value == 1.0


def test_no_row_of_a_sound_sample_is_listed():
    assert [find_wrong_rows(fitted(*linked(seed, noise=2.0)).scores) for seed in range(10)] == [[]] * 10


def test_exchanged_rows_are_listed_as_a_pair_and_the_power_is_foretold():
    rows, images = linked(3)
    foretold, found = visible_exchanges(fitted(rows, images).scores), 0
    generator = np.random.default_rng(0)
    for _ in range(20):
        i, k = sorted(generator.choice(ROWS, 2, replace=False).tolist())
        exchanged = rows.clone()
        exchanged[[i, k]] = rows[[k, i]]
        wrong = find_wrong_rows(fitted(exchanged, images).scores)
        assert {row.index for row in wrong} <= {i, k}
        pairs = {(row.index, row.other) for row in wrong if row.kind == "exchanged"}
        found += pairs == {(i, k), (k, i)}
    assert abs(found / 20 - foretold) < 0.25
    assert foretold > 0.5


def test_rows_of_equal_images_are_never_called_exchanged():
    rows, images = linked(4, noise=0.3)
    rows[1], images[1] = rows[0].clone(), images[0]
    assert find_wrong_rows(fitted(rows, images).scores) == []


def test_a_row_of_an_image_outside_the_sample_is_listed_and_no_other():
    found = []
    for seed in range(8):
        rows, images = linked(seed, rows=ROWS + 1)
        rows[7] = rows[ROWS]  # of an image that may be similar, so not every one is found
        found.append([row.index for row in find_wrong_rows(fitted(rows[:ROWS], images[:ROWS]).scores)])
    assert found.count([7]) >= 2
    assert [] in found
    assert {index for rows in found for index in rows} == {7}


def test_few_rows_are_not_judged_one_by_one():
    scores = fitted(*linked(6, rows=30)).scores
    assert find_wrong_rows(scores) == []
    assert math.isnan(visible_exchanges(scores))


@pytest.mark.parametrize("freedom", [47, 200])
@pytest.mark.parametrize("limit", [3.0, 4.5, 6.0])
def test_the_limit_of_student_t_against_its_integral(freedom, limit):
    x = np.linspace(limit, limit + 60, 400_001)
    scale = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2) - math.log(freedom * math.pi) / 2
    density = np.exp(scale - (freedom + 1) / 2 * np.log1p(x * x / freedom))
    assert _t_limit(float(np.trapezoid(density, x)), freedom) == pytest.approx(limit, rel=0.01)
