"""The translation is the ridge regression of its equation: against one least-squares problem of all rows."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from medalign.errors import InputError, MedalignError
from medalign.student.translation.ridge import Determination, RidgeSums
from medalign.student.translation.translation import (
    Translation,
    TranslationFacts,
    load_translation,
    save_translation,
)


def draw(seed, images=5, cells=6, channels=4, width=3):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(images, cells, channels)) * rng.uniform(0.1, 30, channels) + rng.normal(size=channels)
    tokens = (
        np.tanh(features[..., :width]) + rng.normal(size=(cells, width)) + 0.3 * rng.normal(size=(images, cells, width))
    )
    return features, tokens


def slow_ridge(features, tokens, ridge):
    """Row by row: standardized features, a one-hot of the cell, an intercept that is not penalized."""
    images, cells, channels = features.shape
    mean, scale = features.reshape(-1, channels).mean(0), features.reshape(-1, channels).std(0)
    scale = np.where(scale > 0, scale, 1.0)
    rows, right = [], []
    for image in range(images):
        for cell in range(cells):
            rows.append([*(features[image, cell] - mean) / scale, *np.eye(cells)[cell], 1.0])
            right.append(tokens[image, cell])
    for number in range(channels + cells):  # |sqrt(ridge) B|^2
        rows.append(np.sqrt(ridge) * np.eye(channels + cells + 1)[number])
        right.append(np.zeros(tokens.shape[-1]))
    B = np.linalg.lstsq(np.array(rows), np.array(right), rcond=None)[0]
    predicted = np.zeros_like(tokens)
    for image in range(images):
        for cell in range(cells):
            predicted[image, cell] = [*(features[image, cell] - mean) / scale, *np.eye(cells)[cell], 1.0] @ B
    return predicted


def fitted(features, tokens, ridge=10.0, batches=2):
    sums = RidgeSums(cells=tokens.shape[1], channels=features.shape[2], width=tokens.shape[2])
    for x, y in zip(np.array_split(features, batches), np.array_split(tokens, batches), strict=True):
        sums.add(torch.from_numpy(x), torch.from_numpy(y))
    return sums.solve(ridge)


def apply(solution, features):
    x = (torch.from_numpy(features) - solution.mean) / solution.scale
    return (x @ solution.weight + solution.at_cell).numpy()


@settings(max_examples=15)
@given(seed=st.integers(0, 1000), ridge=st.sampled_from([1e-3, 1.0, 10.0]), offset=st.sampled_from([0.0, 1e4]))
def test_the_solution_is_that_of_one_least_squares_problem(seed, ridge, offset):
    features, tokens = draw(seed)
    features = features + offset
    np.testing.assert_allclose(
        apply(fitted(features, tokens, ridge), features), slow_ridge(features, tokens, ridge), atol=1e-6
    )


@settings(max_examples=15)
@given(seed=st.integers(0, 1000), batches=st.integers(1, 5), scale=st.floats(0.01, 100))
def test_batches_and_the_scale_of_a_channel_do_not_matter(seed, batches, scale):
    features, tokens = draw(seed)
    changed = features * np.array([1, scale, 1, 1]) + np.array([0, 5, 0, 0])
    once, cut = (
        apply(fitted(features, tokens, batches=1), features),
        apply(fitted(changed, tokens, batches=batches), changed),
    )
    np.testing.assert_allclose(once, cut, atol=1e-8)


def test_a_constant_channel_has_no_weight_and_variance_is_that_of_all_rows():
    features, tokens = draw(3)
    features[..., 2] = 7.0
    solution = fitted(features, tokens)
    assert solution.scale[2] == 1.0
    assert float(solution.weight[2].abs().max()) < 1e-12
    assert solution.variance == pytest.approx(tokens.reshape(-1, 3).var(0).mean(), rel=1e-9)


def test_without_images_or_with_nan_there_is_no_translation():
    with pytest.raises(MedalignError, match="without images"):
        RidgeSums(cells=2, channels=2, width=2).solve(1.0)
    features, tokens = draw(0)
    features[0, 0, 0] = np.nan
    with pytest.raises(MedalignError, match="store verify"):
        fitted(features, tokens)


@settings(max_examples=15)
@given(seed=st.integers(0, 1000), batches=st.integers(1, 4))
def test_r2_is_explained_variance(seed, batches):
    rng = np.random.default_rng(seed)
    y = rng.normal(size=(8, 3, 2)) + 100
    p = y + 0.5 * rng.normal(size=y.shape)
    measured = Determination()
    for a, b in zip(np.array_split(y, batches), np.array_split(p, batches), strict=True):
        measured.add(torch.from_numpy(a), torch.from_numpy(b))
    total = sum((row - y.reshape(-1, 2).mean(0)) @ (row - y.reshape(-1, 2).mean(0)) for row in y.reshape(-1, 2))
    assert measured.r2 == pytest.approx(1 - ((y - p) ** 2).sum() / total, abs=1e-9)
    assert measured.residual == pytest.approx(((y - p) ** 2).sum())


@given(errors=st.tuples(st.floats(0, 9), st.floats(0.1, 9)), variance=st.floats(0.5, 9))
def test_skill_is_the_share_of_the_error_of_random_features_that_the_teacher_avoids(errors, variance):
    teacher, random = errors
    facts = replace(FACTS, r2=1 - teacher / variance, r2_random=1 - random / variance)
    assert facts.skill == pytest.approx((random - teacher) / random, abs=1e-9)


@pytest.mark.parametrize("r2_random", [None, 1.0, float("nan")])
def test_without_an_error_of_random_features_there_is_no_skill(r2_random):
    assert replace(FACTS, r2_random=r2_random).skill is None


FACTS = TranslationFacts(
    ridge=10.0,
    r2=0.8,
    r2_position=0.2,
    target_r2=0.1,
    variance=1.5,
    fitted=4,
    held_out=1,
    tokens_dtype="float32",
    store_fingerprint="a",
    base_fingerprint="b",
    anchors_sha256="c",
    control="none",
)


def test_a_translation_is_read_as_it_was_written(tmp_path):
    features, tokens = draw(1)
    solution = fitted(features, tokens)
    translation = Translation.of(solution)
    save_translation(translation, FACTS, tmp_path / "run" / "translation.safetensors")
    again, facts = load_translation(tmp_path / "run" / "translation.safetensors")
    assert facts == FACTS
    x = torch.from_numpy(features).float()
    assert torch.equal(again(x), translation(x))
    np.testing.assert_allclose(again(x).numpy(), apply(solution, features), atol=1e-4)


def test_what_is_no_translation_is_refused(tmp_path):
    file = tmp_path / "translation.safetensors"
    with pytest.raises(InputError, match="is missing"):
        load_translation(file)
    file.write_bytes(b"nothing")
    with pytest.raises(InputError, match="cannot be read as a translation"):
        load_translation(file)
