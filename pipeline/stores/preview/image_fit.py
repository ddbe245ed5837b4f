"""Whether rows match their images: a linear fit from image cells to row cells, judged on rows that it has not seen.

If a row belongs to its image, a fit learned on other rows predicts it better from its own image than from another one.
If rows were permuted or computed from other images, there is nothing to learn. The p-value is that of a permutation
test: the same rows with the images in random order, fitted again each time, so it is exact whatever the features are.

K rows with their images, cells, p measures of an image's cell, q of a row's cell.
"""

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ....progress import Progress

PERMUTATIONS: Final = 199
_FOLDS: Final = 5
_RIDGE: Final = 0.1
"""Ridge in units of a standardized measure's variance."""
_RESIDUAL_FLOOR: Final = 1e-3
_FAR_FROM_BEST: Final = 0.25
"""Share of all images with which a row agrees better than with its own, from which it is not learned from."""


class PairScores(NamedTuple):
    """Rows against the images of all rows; entry [i, j] is about row i and image j, by a fit without row i.

    Both sides are whitened by the covariance of what the fit leaves unexplained.
    """

    agreement: Float[np.ndarray, "row image"]
    """Cosine of the row and the prediction from the image."""
    products: Float[np.ndarray, "row image"]
    """Inner product of the row and the prediction."""
    residual_products: Float[np.ndarray, "row image"]
    """Inner product of the prediction and what the fit leaves of the row with its own image."""
    sizes: Float[np.ndarray, "row image"]
    """Squared length of the prediction."""
    unrest: Float[np.ndarray, " row"]
    """How noisy a row is, at least 1: length of what no image predicts of it, over that of a typical row."""
    trusted: Bool[np.ndarray, " row"]
    """Rows from which the fit was learned."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageFit:
    """The result of the comparison."""

    scores: PairScores
    """By a fit without the rows whose own image is far from the best, so that wrong rows do not hide each other."""
    own: float
    """Mean agreement of rows with their own images."""
    other: float
    """Mean agreement of rows with the images of other rows, by the same fits."""
    preferred: float
    """Share of pairs (row, image of another row) in which the row agrees better with its own image; by chance 0.5."""
    permuted: tuple[float, ...]
    """Mean agreement with images in random order, fitted again; one value for each permutation."""

    @property
    def p_value(self) -> float:
        """Probability of such an agreement, or a better one, if rows had nothing to do with their images."""
        return (1 + sum(value >= self.own for value in self.permuted)) / (1 + len(self.permuted))


class _Moments(NamedTuple):
    """Sums over cells for each row; they are all that a fit needs."""

    cross: Float[Tensor, "row p q"]
    images: Float[Tensor, "row p p"]
    rows: Float[Tensor, "row q q"]
    cells: int


class _Model(NamedTuple):
    """A ridge fit, and the inverse covariance of its residuals."""

    weights: Float[Tensor, "p q"]
    precision: Float[Tensor, "q q"]


def fit_images(
    rows: Float[Tensor, "row cell q"],
    images: Float[Tensor, "row cell p"],
    seed: int,
    progress: Progress,
    permutations: int = PERMUTATIONS,
) -> ImageFit:
    """Compare rows with their images; at least 5 rows."""
    rows, images = _standardized(rows), _standardized(images)
    generator = np.random.default_rng(seed)
    folds = generator.permutation(len(rows)) % _FOLDS
    scores = _pair_scores(rows, images, folds, np.ones(len(rows), dtype=bool))
    moments = moments_of(rows, images)
    permuted = []
    progress.start("comparing rows with images", permutations)
    for _ in range(permutations):
        order = torch.from_numpy(generator.permutation(len(rows)))
        exchanged = _Moments(images[order].mT @ rows, moments.images[order], moments.rows, moments.cells)
        permuted.append(float(held_out_agreement(exchanged, folds).mean()))
        progress.advance()
    own, pairs = np.diag(scores.agreement), len(rows) * (len(rows) - 1)
    better = (scores.agreement > own[:, None]).mean(axis=1)
    return ImageFit(
        scores=_pair_scores(rows, images, folds, better < _FAR_FROM_BEST),
        own=float(own.mean()),
        other=float((scores.agreement.sum() - own.sum()) / pairs),
        preferred=float((own[:, None] > scores.agreement).sum() / pairs),
        permuted=tuple(permuted),
    )


def moments_of(rows: Float[Tensor, "row cell q"], images: Float[Tensor, "row cell p"]) -> _Moments:
    """The sums over the cells of each row and its image."""
    return _Moments(images.mT @ rows, images.mT @ images, rows.mT @ rows, rows.shape[1])


def held_out_agreement(moments: _Moments, folds: Int[np.ndarray, " row"]) -> Float[np.ndarray, " row"]:
    """Agreement of each row with its image, by a fit on the rows of the other folds."""
    agreement = np.zeros(len(folds))
    used = np.ones(len(folds), dtype=bool)
    for fold, (weights, precision) in enumerate(_fitted(moments, folds, used)):
        inside = torch.from_numpy(np.flatnonzero(folds == fold))
        weighted = weights @ precision
        product = (moments.cross[inside] * weighted).sum(dim=(1, 2))
        predicted = (moments.images[inside] * (weighted @ weights.T)).sum(dim=(1, 2))
        own = (moments.rows[inside] * precision).sum(dim=(1, 2))
        agreement[inside.numpy()] = (product / (predicted * own).clamp_min(1e-30).sqrt()).numpy()
    return agreement


def _fitted(moments: _Moments, folds: Int[np.ndarray, " row"], used: Bool[np.ndarray, " row"]) -> list[_Model]:
    """For each fold, a fit on the used rows of all others."""
    chosen = torch.from_numpy((folds != np.arange(_FOLDS)[:, None]) & used).to(moments.cross.dtype)
    parts = [torch.einsum("fr,rab->fab", chosen, part).double() for part in moments[:3]]
    models = []
    for fold, (cross, images, rows) in enumerate(zip(*parts, strict=True)):
        cells = moments.cells * max(1, int(chosen[fold].sum()))
        weights = torch.linalg.solve(images + _RIDGE * cells * torch.eye(len(images)).double(), cross)
        explained = weights.T @ cross
        residual = (rows - explained - explained.T + weights.T @ images @ weights) / cells
        precision = torch.linalg.inv(residual + _RESIDUAL_FLOOR * torch.eye(len(rows)).double())
        models.append(_Model(weights.to(moments.cross.dtype), precision.to(moments.cross.dtype)))
    return models


def _pair_scores(
    rows: Float[Tensor, "row cell q"],
    images: Float[Tensor, "row cell p"],
    folds: Int[np.ndarray, " row"],
    used: Bool[np.ndarray, " row"],
) -> PairScores:
    count = len(rows)
    pairs = (count, count)
    scores = PairScores(np.zeros(pairs), np.zeros(pairs), np.zeros(pairs), np.zeros(pairs), np.zeros(count), used)
    for fold, (weights, precision) in enumerate(_fitted(moments_of(rows, images), folds, used)):
        inside = np.flatnonzero(folds == fold)
        whitening = torch.linalg.cholesky(precision)
        predicted = (images @ (weights @ whitening)).flatten(1)
        own = (rows[inside] @ whitening).flatten(1)
        left = own - predicted[inside]
        products, lengths = own @ predicted.T, predicted.norm(dim=1)
        scale = (own.norm(dim=1, keepdim=True) * lengths).clamp_min(1e-15)
        scores.agreement[inside] = (products / scale).numpy()
        scores.products[inside] = products.numpy()
        scores.residual_products[inside] = (left @ predicted.T).numpy()
        scores.sizes[inside] = lengths.square().numpy()
        scores.unrest[inside] = _unpredicted(left, predicted).numpy()
    typical = max(float(np.median(scores.unrest[used])) if used.any() else 0.0, 1e-12)
    return scores._replace(unrest=np.sqrt(np.maximum(scores.unrest / typical, 1.0)))


def _unpredicted(left: Float[Tensor, "some value"], predicted: Float[Tensor, "row value"]) -> Float[Tensor, " some"]:
    """Squared length of residuals at right angles to the main directions of all predictions.

    There, it makes no difference whether a row belongs to its image.
    """
    values, vectors = torch.linalg.eigh((predicted @ predicted.T).double())
    main = slice(-max(1, min(len(predicted), predicted.shape[1] // 4)), None)
    directions = vectors[:, main] / values[main].clamp_min(1e-9 * max(float(values[-1]), 1e-30)).sqrt()
    along = (left @ predicted.T).double() @ directions
    rest: Tensor = left.double().square().sum(dim=1) - along.square().sum(dim=1)
    return rest.clamp_min(0)


def _standardized(values: Float[Tensor, "row cell measure"]) -> Float[Tensor, "row cell measure"]:
    """Without what all rows have in common in a cell, and every measure with variance 1; constant measures are 0."""
    centered = values - values.mean(dim=0)
    scale = centered.square().mean(dim=(0, 1)).sqrt()
    return torch.where(scale > 1e-6, centered / scale.clamp_min(1e-6), 0.0)
