"""Linear probes: perfect where names are linear, at chance where there is nothing, and never trained on test images."""

import numpy as np
import pytest
from medalign.pipeline.inspection.probes.linear_probe import balanced_accuracy, held_out_predictions

IMAGES, EACH, CLASSES = 30, 4, 3
NOTHING = np.empty((IMAGES * EACH, 0))


@pytest.fixture
def examples():
    """Labels of a few tokens per image."""
    random = np.random.default_rng(0)
    return random, random.integers(CLASSES, size=IMAGES * EACH), np.repeat(np.arange(IMAGES), EACH)


def nearest_means(features, labels):
    means = np.stack([features[labels == name].mean(axis=0) for name in range(CLASSES)])
    return np.square(features[:, None] - means).sum(axis=2).argmin(axis=1)


def test_it_reads_separable_names_as_nearest_means_do(examples):
    random, labels, images = examples
    centers = 3 * np.eye(CLASSES) @ random.normal(size=(CLASSES, 50))
    features = centers[labels] + 0.3 * random.normal(size=(len(labels), 50))
    predicted = held_out_predictions(features, NOTHING, labels, images, seed=1)
    assert (predicted == nearest_means(features, labels)).all()
    assert balanced_accuracy(labels, predicted) == 1


def test_scale_and_offset_of_features_change_nothing(examples):
    random, labels, images = examples
    features = np.eye(CLASSES)[labels] + random.normal(size=(len(labels), CLASSES))
    predicted = held_out_predictions(features, NOTHING, labels, images, seed=1)
    moved = held_out_predictions(features * [1, 1e3, 1e-3] + 7, NOTHING, labels, images, seed=1)
    assert 0.4 < balanced_accuracy(labels, predicted) < 0.9
    assert (moved == predicted).all()


def test_what_identifies_an_image_does_not_help_on_other_images(examples):
    random, _, images = examples
    labels = np.repeat(random.integers(2, size=IMAGES), EACH)  # one name per image: a leak would be perfect
    predicted = held_out_predictions(np.eye(IMAGES)[images], NOTHING, labels, images, seed=1)
    assert balanced_accuracy(labels, predicted) < 0.75


def test_a_probe_without_features_uses_the_extra_ones_or_guesses(examples):
    _, labels, images = examples
    assert (
        balanced_accuracy(labels, held_out_predictions(NOTHING, np.eye(CLASSES)[labels], labels, images, seed=0)) == 1
    )
    guessed = held_out_predictions(NOTHING, NOTHING, labels, images, seed=0)
    assert balanced_accuracy(labels, guessed) < 0.5


def test_balanced_accuracy_is_the_mean_over_classes():
    labels, predicted = np.array([0, 0, 0, 0, 1]), np.array([0, 0, 0, 1, 0])
    assert balanced_accuracy(labels, predicted) == pytest.approx((3 / 4 + 0) / 2)
