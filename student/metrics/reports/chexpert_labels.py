"""Two metrics that are both called CheXbert: cosine of embeddings (the paper's), and F1 of labels (f1chexbert's)."""

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
        [float(torch.cosine_similarity(said.embedding, expected.embedding, dim=0)) for said, expected in pairs],
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
    """F1 of positive labels over a corpus, uncertain ones counted as positive.

    micro: one F1 of all labels together. macro: the mean of one F1 a condition; a condition that neither side has
    counts as 0, as in scikit-learn and so in f1chexbert.
    """
    columns = [CONDITIONS.index(condition) for condition in conditions]
    said = positives(chexbert.read(predictions))[:, columns]
    expected = positives(chexbert.read(references))[:, columns]
    hits, errors = (said & expected).astype(float), (said != expected).astype(float)
    if not macro:
        hits, errors = hits.sum(axis=1, keepdims=True), errors.sum(axis=1, keepdims=True)
    asked = np.ones((len(said), 1))  # a report without any label counts too
    return MetricResult(name=name, parts=np.concatenate([hits, errors, asked], axis=1), combine=mean_f1)


def mean_f1(sums: Float[np.ndarray, "*draws k"]) -> Float[np.ndarray, "*draws"]:
    """Mean over conditions of 2 TP / (2 TP + FP + FN); sums are (hits of each, errors of each, reports)."""
    half = (sums.shape[-1] - 1) // 2
    doubled, errors = 2 * sums[..., :half], sums[..., half : 2 * half]
    f1 = np.divide(doubled, doubled + errors, out=np.zeros_like(doubled), where=doubled + errors > 0)
    return np.where(sums[..., -1] > 0, f1.mean(axis=-1), np.nan)


def positives(reports: Sequence[ReadReport]) -> Bool[np.ndarray, "reports conditions"]:
    """Which conditions a report states as present or possible."""
    classes = np.array([report.classes for report in reports], dtype=int).reshape(len(reports), len(CONDITIONS))
    return np.isin(classes, _POSITIVE)


LABEL_SETS = {"14": CONDITIONS, "5": MAIN_CONDITIONS}
