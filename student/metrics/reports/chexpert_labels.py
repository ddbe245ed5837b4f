"""Two metrics called CheXbert: cosine of embeddings (the paper's), and F1 of labels (f1chexbert's)."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float

from ..result import MetricResult, mean_result
from .chexbert import CLASSES, CONDITIONS, MAIN_CONDITIONS, Chexbert, ReadReport

_POSITIVE = (CLASSES.index("positive"), CLASSES.index("uncertain"))


def cosine_result(name: str, chexbert: Chexbert, predictions: Sequence[str], references: Sequence[str]) -> MetricResult:
    """Mean cosine of the embeddings of prediction and reference: CXR-Report-Metric's `semb_score`."""
    pairs = zip(chexbert.read(predictions), chexbert.read(references), strict=True)
    return mean_result(
        name,
        [
            float(torch.cosine_similarity(predicted.embedding, expected.embedding, dim=0))
            for predicted, expected in pairs
        ],
    )


def label_f1_result(
    name: str,
    chexbert: Chexbert,
    predictions: Sequence[str],
    references: Sequence[str],
    *,
    conditions: Sequence[str],
    macro: bool,
) -> MetricResult:
    """F1 of positive labels over a corpus; uncertain labels count as positive.

    micro: one F1 over all labels. macro: the mean of the F1 of each condition; a condition without labels on both sides
    counts as 0, as in scikit-learn and f1chexbert.
    """
    columns = [CONDITIONS.index(condition) for condition in conditions]
    predicted = positives(chexbert.read(predictions))[:, columns]
    expected = positives(chexbert.read(references))[:, columns]
    hits, errors = (predicted & expected).astype(float), (predicted != expected).astype(float)
    if not macro:
        hits, errors = hits.sum(axis=1, keepdims=True), errors.sum(axis=1, keepdims=True)
    ones = np.ones((len(predicted), 1))  # reports without labels are also counted
    return MetricResult(name=name, parts=np.concatenate([hits, errors, ones], axis=1), combine=mean_f1)


def mean_f1(sums: Float[np.ndarray, "*draws k"]) -> Float[np.ndarray, "*draws"]:
    """Mean over conditions of 2 TP / (2 TP + FP + FN); sums are (hits of each, errors of each, reports)."""
    half = (sums.shape[-1] - 1) // 2
    doubled, errors = 2 * sums[..., :half], sums[..., half : 2 * half]
    f1 = np.divide(doubled, doubled + errors, out=np.zeros_like(doubled), where=doubled + errors > 0)
    return np.where(sums[..., -1] > 0, f1.mean(axis=-1), np.nan)


def positives(reports: Sequence[ReadReport]) -> Bool[np.ndarray, "reports conditions"]:
    """Which conditions each report states as present or possible."""
    classes = np.array([report.classes for report in reports], dtype=int).reshape(len(reports), len(CONDITIONS))
    return np.isin(classes, _POSITIVE)


LABEL_SETS = {"14": CONDITIONS, "5": MAIN_CONDITIONS}
