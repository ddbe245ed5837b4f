"""Whether rows fit their images: a linear fit from image cells to row cells, judged on rows that it has not seen.

If a row belongs to its image, a fit learned on other rows predicts it better from its own image than from another one.
If rows were permuted or computed from other images, there is nothing to learn. The p-value is that of a permutation
test: the same rows with the images in random order, fitted again each time, so it is exact whatever the features are.

K rows with their images, cells, p measures of an image's cell, q of a row's cell.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ....progress import Progress

PERMUTATIONS: Final = 199
_FOLDS: Final = 5
_RIDGE: Final = 0.1
"""Ridge in units of a standardized measure's variance."""
_RESIDUAL_FLOOR: Final = 1e-3


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
    residual_sizes: Float[np.ndarray, " row"]
    """Squared length of what the fit leaves of the row with its own image."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageFit:
    """The result of the comparison."""

    scores: PairScores
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
    scores = _pair_scores(rows, images, folds)
    own = np.diag(scores.agreement)
    count = len(own)
    sums = images.transpose(1, 2).double() @ images.double()
    squares = rows.transpose(1, 2).double() @ rows.double()
    permuted = []
    progress.start("comparing rows with images", permutations)
    for _ in range(permutations):
        order = torch.from_numpy(generator.permutation(count))
        moments = _Moments((images[order].transpose(1, 2) @ rows).double(), sums[order], squares, rows.shape[1])
        permuted.append(float(held_out_agreement(moments, folds).mean()))
        progress.advance()
    others = scores.agreement.sum() - own.sum()
    return ImageFit(
        scores=scores,
        own=float(own.mean()),
        other=float(others / (count * (count - 1))),
        preferred=float((own[:, None] > scores.agreement).sum() / (count * (count - 1))),
        permuted=tuple(permuted),
    )


def moments_of(rows: Float[Tensor, "row cell q"], images: Float[Tensor, "row cell p"]) -> _Moments:
    """The sums over the cells of each row and its image."""
    rows, images = rows.double(), images.double()
    return _Moments(images.mT @ rows, images.mT @ images, rows.mT @ rows, rows.shape[1])


def held_out_agreement(moments: _Moments, folds: Int[np.ndarray, " row"]) -> Float[np.ndarray, " row"]:
    """Agreement of each row with its image, by a fit on the rows of the other folds."""
    agreement = np.zeros(len(folds))
    for fold in range(_FOLDS):
        inside = torch.from_numpy(np.flatnonzero(folds == fold))
        weights, precision = _fitted(moments, folds != fold)
        weighted = weights @ precision
        product = (moments.cross[inside] * weighted).sum(dim=(1, 2))
        predicted = ((weights.T @ moments.images[inside] @ weighted).diagonal(dim1=1, dim2=2)).sum(dim=1)
        own = (moments.rows[inside] * precision).sum(dim=(1, 2))
        agreement[inside.numpy()] = (product / (predicted * own).clamp_min(1e-30).sqrt()).numpy()
    return agreement


def _fitted(moments: _Moments, used: Sequence[bool] | np.ndarray) -> _Model:
    chosen = torch.from_numpy(np.flatnonzero(used))
    cross, images, rows = (part[chosen].sum(dim=0) for part in moments[:3])
    cells = moments.cells * len(chosen)
    weights = torch.linalg.solve(images + _RIDGE * cells * torch.eye(len(images), dtype=images.dtype), cross)
    explained = weights.T @ cross
    residual = (rows - explained - explained.T + weights.T @ images @ weights) / cells
    return _Model(weights, torch.linalg.inv(residual + _RESIDUAL_FLOOR * torch.eye(len(rows), dtype=rows.dtype)))


def _pair_scores(
    rows: Float[Tensor, "row cell q"], images: Float[Tensor, "row cell p"], folds: Int[np.ndarray, " row"]
) -> PairScores:
    count = len(rows)
    moments = moments_of(rows, images)
    scores = PairScores(*(np.zeros((count, count)) for _ in range(4)), np.zeros(count))
    for fold in range(_FOLDS):
        inside = np.flatnonzero(folds == fold)
        model = _fitted(moments, folds != fold)
        whitening = torch.linalg.cholesky(model.precision).float()
        predicted = (images @ (model.weights.float() @ whitening)).flatten(1)
        own = (rows[inside] @ whitening).flatten(1)
        left = own - predicted[inside]
        products, lengths = own @ predicted.T, predicted.norm(dim=1)
        scale = (own.norm(dim=1, keepdim=True) * lengths).clamp_min(1e-15)
        scores.agreement[inside] = (products / scale).numpy()
        scores.products[inside] = products.numpy()
        scores.residual_products[inside] = (left @ predicted.T).numpy()
        scores.sizes[inside] = lengths.square().numpy()
        scores.residual_sizes[inside] = left.square().sum(dim=1).numpy()
    return scores


def _standardized(values: Float[Tensor, "row cell measure"]) -> Float[Tensor, "row cell measure"]:
    """Without what all rows have in common in a cell, and every measure with variance 1; constant measures are 0."""
    centered = values - values.mean(dim=0)
    scale = centered.square().mean(dim=(0, 1)).sqrt()
    return torch.where(scale > 1e-6, centered / scale.clamp_min(1e-6), 0.0)
