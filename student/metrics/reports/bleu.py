"""BLEU (Papineni et al. 2002) in three variants, which differ by more than most improvements: docs/metrics.md."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from ..result import MetricResult, mean_result
from .report_words import Tokenizer, coco_words

ORDERS = 4
_TINY, _SMALL = 1e-15, 1e-9  # COCO's guards against division by zero


def sentence_bleu_result(
    name: str, tokenize: Tokenizer, predictions: Sequence[str], references: Sequence[str]
) -> MetricResult:
    """The paper's BLEU: mean of nltk's sentence BLEU-4, with smoothing method 4 (Chen and Cherry 2014)."""
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    smooth = SmoothingFunction().method4
    values = [
        float(sentence_bleu([tokenize(reference)], tokenize(prediction), smoothing_function=smooth))
        for prediction, reference in zip(predictions, references, strict=True)
    ]
    return mean_result(name, values)


def sacrebleu_result(name: str, predictions: Sequence[str], references: Sequence[str]) -> MetricResult:
    """Corpus BLEU-4 of sacrebleu (Post 2018): 13a tokens, summed counts, exponential smoothing, cased."""
    from sacrebleu.metrics import BLEU

    counter = BLEU(effective_order=True)  # used to count a single report; the sums are scored without it

    def parts(prediction: str, reference: str) -> list[int]:
        counted = counter.sentence_score(prediction, [reference])
        return [counted.sys_len, counted.ref_len, *counted.counts, *counted.totals]

    def combine(sums: Float[np.ndarray, " k"]) -> float:
        counts = [round(value) for value in sums.tolist()]
        if counts[1] == 0:
            return math.nan
        score: Any = BLEU.compute_bleu(counts[2:6], counts[6:], counts[0], counts[1], smooth_method="exp")
        return float(score.score) / 100

    return _corpus_result(
        name,
        [parts(*pair) for pair in zip(predictions, references, strict=True)],
        lambda sums: np.apply_along_axis(combine, -1, sums),
    )


def coco_bleu_result(name: str, predictions: Sequence[str], references: Sequence[str]) -> MetricResult:
    """Corpus BLEU-4 as in the COCO caption tools: lowercase words without punctuation, no smoothing."""
    rows = [
        coco_counts(coco_words(prediction), coco_words(reference))
        for prediction, reference in zip(predictions, references, strict=True)
    ]
    return _corpus_result(name, rows, coco_bleu)


def coco_counts(prediction: Sequence[str], reference: Sequence[str]) -> list[int]:
    """Lengths, then clipped matches and n-grams of the prediction for n = 1 to 4."""
    matches, guesses = [], []
    for order in range(1, ORDERS + 1):
        predicted, expected = _ngrams(prediction, order), _ngrams(reference, order)
        matches.append((predicted & expected).total())
        guesses.append(predicted.total())
    return [len(prediction), len(reference), *matches, *guesses]


def coco_bleu(sums: Float[np.ndarray, "*draws k"]) -> Float[np.ndarray, "*draws"]:
    """BLEU-4 of summed counts: geometric mean of the precisions times the brevity penalty."""
    precisions = (sums[..., 2 : 2 + ORDERS] + _TINY) / (sums[..., 2 + ORDERS :] + _SMALL)
    ratio = (sums[..., 0] + _TINY) / (sums[..., 1] + _SMALL)
    penalty = np.exp(np.minimum(1 - 1 / ratio, 0))
    score = precisions.prod(axis=-1) ** (1 / ORDERS) * penalty
    return np.where(sums[..., 1] == 0, np.nan, score)


def _ngrams(words: Sequence[str], order: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[start : start + order]) for start in range(len(words) - order + 1))


def _corpus_result(name: str, rows: Sequence[Sequence[int]], combine: Any) -> MetricResult:
    parts = np.array(rows, dtype=float).reshape(len(rows), 2 + 2 * ORDERS)
    return MetricResult(name=name, parts=parts, combine=combine)
