"""Similarity of two reports' entities (Zhao et al. 2024): best matches by cosine, weighted by both types."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

TYPES = ("ABNORMALITY", "ANATOMY", "DISEASE", "NON-ABNORMALITY", "NON-DISEASE")
EITHER_EMPTY = 0.5
"""Score of a pair if either report has no entity."""

# Default weights of the RaTEScore package, fitted to ratings of full reports: rows are the types of entities, columns
# those of their matches, in the order of TYPES.
_WEIGHTS = (
    (0.4276119164393705, 0.6240929990607657, 0.0034478181112993847, 0.5431049700217344, 0.27005425386213877),
    (0.7487824274337533, 0.2856134859160784, 0.4592143222158069, 0.02097055139911715, 0.00013736314126696204),
    (0.8396510075734789, 0.9950209388542061, 0.8460555030578727, 0.9820689020512646, 0.3789136708096537),
    (0.16546764653692908, 0.018670610691852826, 0.719397354576018, 0.0009357166071730684, 0.0927333564267591),
    (0.7759420231214385, 0.1839139293714062, 0.10073046076318157, 0.03860183811876373, 0.34065681486566446),
)
_CONTRADICTION = 0.8716553966489615
"""Factor if an entity is stated and its match is denied, or the reverse."""
_DENIED = ("NON-ABNORMALITY", "NON-DISEASE")
_STATED = ("ABNORMALITY", "DISEASE")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Entities:
    """Entities of one report."""

    types: tuple[str, ...]
    embeddings: Float[Tensor, "entities width"]


def pair_score(predicted: Entities, expected: Entities) -> float:
    """Harmonic mean of the shares of each side's entities that match the other side."""
    if not predicted.types or not expected.types:
        return EITHER_EMPTY
    forth, back = found_share(expected, predicted), found_share(predicted, expected)
    return 2 * forth * back / (forth + back) if forth + back else 0.0


def found_share(seekers: Entities, others: Entities) -> float:
    """Weighted mean, over seekers, of the cosine with the nearest of the others.

    Ties, such as one name with two types, are resolved as in the package (github.com/MAGIC-AI4Med/RaTEScore, commit
    a970406): one seeker at a time, by `topk`.
    """
    candidates = _unit(others.embeddings)
    nearest = [torch.topk(candidates @ seeker, 1) for seeker in _unit(seekers.embeddings)]
    matched = [others.types[int(best.indices)] for best in nearest]
    weights = [
        _WEIGHTS[TYPES.index(own)][TYPES.index(other)] for own, other in zip(seekers.types, matched, strict=True)
    ]
    factors = [_factor(own, other) for own, other in zip(seekers.types, matched, strict=True)]
    total = sum(
        float(best.values) * weight * factor for best, weight, factor in zip(nearest, weights, factors, strict=True)
    )
    return float(total / sum(weights))


def _factor(own: str, other: str) -> float:
    contradict = (own in _DENIED and other in _STATED) or (own in _STATED and other in _DENIED)
    return _CONTRADICTION if contradict else 1.0


def _unit(embeddings: Float[Tensor, "entities width"]) -> Float[Tensor, "entities width"]:
    return torch.nn.functional.normalize(embeddings, dim=1)


def labeled_runs(labels: Sequence[str]) -> list[tuple[int, int, str]]:
    """Find runs of IOB labels (`B-X`, then any `I-`): index of the first and last token, and the type of the first.

    `labels` are those of a sentence's tokens without special tokens.
    """
    runs: list[tuple[int, int, str]] = []
    inside = False
    for index, label in enumerate(labels):
        if label.startswith("B-"):
            runs.append((index, index, label[2:]))
            inside = True
        elif label.startswith("I-") and inside:
            runs[-1] = (runs[-1][0], index, runs[-1][2])
        else:
            inside = False
    return runs
