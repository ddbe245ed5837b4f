"""ROUGE-L (Lin 2004) and METEOR (Banerjee and Lavie 2005), computed by rouge-score and nltk."""

from collections.abc import Sequence

from ..result import MetricResult, mean_result
from .report_words import Tokenizer
from .wordnet import Synonyms


def rouge_l_result(name: str, predictions: Sequence[str], references: Sequence[str]) -> MetricResult:
    """Mean F1 of the longest common subsequence of words, with Porter stemming."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    pairs = zip(predictions, references, strict=True)
    return mean_result(
        name, [float(scorer.score(expected, predicted)["rougeL"].fmeasure) for predicted, expected in pairs]
    )


def meteor_result(
    name: str, tokenize: Tokenizer, synonyms: Synonyms, predictions: Sequence[str], references: Sequence[str]
) -> MetricResult:
    """Mean of nltk's METEOR: words are matched exactly, by stem, then by WordNet's synonyms."""
    from nltk.translate.meteor_score import meteor_score

    pairs = zip(predictions, references, strict=True)
    return mean_result(
        name,
        [
            float(meteor_score([tokenize(expected)], tokenize(predicted), wordnet=synonyms))
            for predicted, expected in pairs
        ],
    )
