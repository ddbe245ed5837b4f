"""Separation of named tokens, against slow versions of the definitions."""

import numpy as np
import pytest
from medalign.pipeline.inspection.tokens.cluster_measures import (
    project_pca,
    project_tsne,
    scatter_ratio,
    token_silhouettes,
)


@pytest.fixture
def tokens():
    random = np.random.default_rng(0)
    labels = np.array([0] * 7 + [1] * 9 + [2] * 5)
    return random.normal(size=(21, 6)) + 1.5 * np.eye(6)[labels], labels


def distance(one, other):
    return 1 - one @ other / np.linalg.norm(one) / np.linalg.norm(other)


def test_silhouettes_are_those_of_cosine_distances(tokens):
    values, labels = tokens
    for place, found in enumerate(token_silhouettes(values, labels)):
        means = {
            name: np.mean(
                [distance(values[place], values[other]) for other in np.flatnonzero(labels == name) if other != place]
            )
            for name in (0, 1, 2)
        }
        own = means.pop(labels[place])
        other = min(means.values())
        assert found == pytest.approx((other - own) / max(own, other))


def test_scatter_is_between_over_within(tokens):
    values, labels = tokens
    unit = values / np.linalg.norm(values, axis=1, keepdims=True)
    total = np.square(unit - unit.mean(axis=0)).sum()
    within = sum(np.square(unit[labels == name] - unit[labels == name].mean(axis=0)).sum() for name in (0, 1, 2))
    assert scatter_ratio(values, labels) == pytest.approx((total - within) / within)  # total = between + within
    assert scatter_ratio(3 * values, labels) == pytest.approx(scatter_ratio(values, labels))


def test_the_first_principal_component_has_the_most_variance(tokens):
    values, _ = tokens
    plane = project_pca(values)
    unit = values / np.linalg.norm(values, axis=1, keepdims=True)
    variances = np.linalg.eigvalsh(np.cov(unit.T))[::-1]
    assert plane.var(axis=0, ddof=1) == pytest.approx(variances[:2])
    assert project_pca(np.ones((5, 3))).tolist() == [[0, 0]] * 5


def test_tsne_is_seeded_and_keeps_separate_clusters_apart():
    labels = np.repeat([0, 1], 15)
    values = np.random.default_rng(0).normal(size=(30, 4)) * 0.1 + 5 * np.eye(4)[labels]
    plane = project_tsne(values, seed=0)
    assert np.array_equal(plane, project_tsne(values, seed=0))
    assert token_silhouettes(plane, labels, plane=True).mean() > 0.4
