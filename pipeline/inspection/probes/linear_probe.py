"""A linear probe with the same capacity for features of any width, scored on held-out images.

n examples, D features, E extra features that every probe gets.
"""

import warnings
from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float, Int
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

COMPONENTS = 32
"""Principal components of the standardized features."""
STRENGTHS = (0.01, 0.1, 1.0)
"""Inverse regularization strengths to choose from."""
FOLDS = 3
_STEPS = 100
_TOLERANCE = 1e-3
_TIE = 0.002
"""A weaker regularization must score this much better."""


def held_out_predictions(
    features: Float[np.ndarray, "examples features"],
    extra: Float[np.ndarray, "examples extra"],
    labels: Int[np.ndarray, " examples"],
    images: Int[np.ndarray, " examples"],
    *,
    seed: int,
) -> Int[np.ndarray, " examples"]:
    """Predict the label of every example with a probe that was trained on other images.

    The images are divided into three parts. For each part, a probe is trained on the other two: features are
    standardized and reduced to the same number of principal components for any width, `extra` is appended, and the
    regularization of a logistic regression with balanced classes is chosen on a third of the training images.
    """
    predicted = np.empty(len(labels), dtype=labels.dtype)
    for held_out, inner in _folds(images, seed):
        train = ~held_out
        inputs = _inputs(features, extra, train)
        strength = _choose(inputs[train & ~inner], labels[train & ~inner], inputs[train & inner], labels[train & inner])
        predicted[held_out] = _predict(strength, inputs[train], labels[train], inputs[held_out])
    return predicted


def balanced_accuracy(labels: Int[np.ndarray, " examples"], predicted: Int[np.ndarray, " examples"]) -> float:
    """Mean over the classes of the share of their examples that is predicted correctly."""
    return float(np.mean([(predicted[labels == name] == name).mean() for name in np.unique(labels)]))


def _folds(
    images: Int[np.ndarray, " examples"], seed: int
) -> Iterator[tuple[Bool[np.ndarray, " examples"], Bool[np.ndarray, " examples"]]]:
    """For each part of the images: its examples, and those on which the regularization is chosen."""
    names = np.unique(images)
    generator = np.random.default_rng(seed)
    part = generator.permutation(len(names)) % FOLDS
    inner = generator.permutation(len(names)) % FOLDS == 0
    place = np.searchsorted(names, images)
    for number in range(FOLDS):
        yield part[place] == number, inner[place]


def _inputs(features: np.ndarray, extra: np.ndarray, train: Bool[np.ndarray, " examples"]) -> np.ndarray:
    """Principal components with unit mean variance beside the standardized extra features; fitted on `train`."""
    standard = _standardized(features, train)
    count = min(COMPONENTS, standard.shape[1], int(train.sum()) // 2)
    if count:
        components = PCA(count, svd_solver="randomized", random_state=0).fit(standard[train]).transform(standard)
        components /= max(float(components[train].std(axis=0).mean()), 1e-12)
        standard = components
    return np.concatenate([standard, _standardized(extra, train)], axis=1)


def _standardized(features: np.ndarray, train: Bool[np.ndarray, " examples"]) -> np.ndarray:
    """Zero mean and unit variance over `train`; constant features are left out."""
    values = features.astype(np.float64)
    mean, spread = values[train].mean(axis=0), values[train].std(axis=0)
    varies = spread > 1e-6 * np.abs(mean)  # more than rounding
    return np.asarray((values[:, varies] - mean[varies]) / spread[varies])


def _choose(train: np.ndarray, labels: np.ndarray, inner: np.ndarray, expected: np.ndarray) -> float:
    """The strongest regularization that scores best on other training images."""
    best, chosen = -1.0, STRENGTHS[0]
    if len(expected) == 0 or len(labels) == 0:
        return STRENGTHS[1]
    for strength in STRENGTHS:
        score = balanced_accuracy(expected, _predict(strength, train, labels, inner))
        if score > best + _TIE:
            best, chosen = score, strength
    return chosen


def _predict(strength: float, train: np.ndarray, labels: np.ndarray, others: np.ndarray) -> np.ndarray:
    names = np.unique(labels)
    if len(names) == 1:  # a small part of the images
        return np.full(len(others), names[0])
    if train.shape[1] == 0:  # no feature varies
        return np.full(len(others), names[np.bincount(np.searchsorted(names, labels)).argmax()])
    model = LogisticRegression(C=strength, class_weight="balanced", max_iter=_STEPS, tol=_TOLERANCE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the last steps change no prediction that matters
        return np.asarray(model.fit(train, labels).predict(others))
