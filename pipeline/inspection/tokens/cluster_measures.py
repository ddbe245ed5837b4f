"""How well named tokens separate: silhouette and scatter, in the tokens' own space and in a plane.

n tokens of width D.
"""

import numpy as np
from jaxtyping import Float, Int
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.metrics import silhouette_samples

PERPLEXITY = 30.0
_STEPS = 600
_BEFORE_TSNE = 50
"""Principal components that t-SNE gets."""


def token_silhouettes(
    tokens: Float[np.ndarray, "tokens width"], labels: Int[np.ndarray, " tokens"], *, plane: bool = False
) -> Float[np.ndarray, " tokens"]:
    """The silhouette of every token (Rousseeuw 1987), in [-1, 1]; 1: much nearer to its own name than to any other.

    Distances are 1 - cosine, the similarity that alignment compares (Eq. 3), or Euclidean in a plane.
    """
    values = np.asarray(tokens, dtype=np.float64)
    return np.asarray(silhouette_samples(values, labels, metric="euclidean" if plane else "cosine"))


def scatter_ratio(
    tokens: Float[np.ndarray, "tokens width"], labels: Int[np.ndarray, " tokens"], *, plane: bool = False
) -> float:
    """Scatter between the means of the names over scatter within the names, as traces; 0 if names say nothing.

    Of unit vectors, or of points in a plane; nan if all tokens of a name are equal.
    """
    values = np.asarray(tokens, dtype=np.float64) if plane else unit_rows(tokens)
    center = values.mean(axis=0)
    between = within = 0.0
    for name in np.unique(labels):
        own = values[labels == name]
        between += len(own) * float(np.square(own.mean(axis=0) - center).sum())
        within += float(np.square(own - own.mean(axis=0)).sum())
    return between / within if within > 0 else float("nan")


def unit_rows(tokens: Float[np.ndarray, "tokens width"]) -> Float[np.ndarray, "tokens width"]:
    """Tokens of length 1; zero tokens remain zero."""
    values = np.asarray(tokens, dtype=np.float64)
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    return np.asarray(values / np.where(norms > 0, norms, 1.0))


def project_pca(tokens: Float[np.ndarray, "tokens width"]) -> Float[np.ndarray, "tokens 2"]:
    """The first two principal components of the unit tokens."""
    return _components(unit_rows(tokens), 2)


def project_tsne(tokens: Float[np.ndarray, "tokens width"], *, seed: int) -> Float[np.ndarray, "tokens 2"]:
    """t-SNE (van der Maaten and Hinton 2008) of the first 50 principal components of the unit tokens; seeded."""
    reduced = _components(unit_rows(tokens), _BEFORE_TSNE)
    spread = float(reduced.std())
    perplexity = min(PERPLEXITY, max(2.0, (len(reduced) - 1) / 4))
    scaled = reduced / spread if spread > 0 else reduced
    embedding = TSNE(perplexity=perplexity, init="pca" if spread > 0 else "random", random_state=seed, max_iter=_STEPS)
    return np.asarray(embedding.fit_transform(scaled.astype(np.float32)), dtype=np.float64)


def _components(values: np.ndarray, count: int) -> np.ndarray:
    count = min(count, *values.shape)
    found = np.zeros((len(values), count))
    if np.ptp(values, axis=0).max() > 0:
        found = np.asarray(PCA(count, svd_solver="randomized", random_state=0).fit_transform(values))
    return np.pad(found, ((0, 0), (0, max(0, 2 - count))))
