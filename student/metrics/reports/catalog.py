"""All report metrics, with their required assets."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from ....errors import SettingsError
from ....suggestions import suggestion
from ..result import MetricResult
from .bertscore import BertScore, bertscore_result
from .bleu import coco_bleu_result, sacrebleu_result, sentence_bleu_result
from .chexbert import Chexbert
from .chexpert_labels import LABEL_SETS, cosine_result, label_f1_result
from .metric_assets import CHEXBERT, PUNKT, RADGRAPH, RATESCORE, ROBERTA, WORDNET, AssetNeed
from .overlap import meteor_result, rouge_l_result
from .radgraph.annotate import RadGraph
from .radgraph.scores import entity_f1, paper_f1, partial_f1, radgraph_result, relation_f1
from .ratescore.ratescore_metric import RateScore, ratescore_result
from .report_metric import Assets, MissingAsset, ReportMetric
from .report_words import nltk_tokenizer
from .wordnet import Synonyms

Readers = Mapping[str, Callable[[Path], Any]]
"""Function that loads the folder of each asset."""
Score = Callable[..., MetricResult]
"""Takes a metric's name, its loaded assets, predictions and references."""


def report_metrics(assets: Assets, *, device: str = "cpu") -> list[ReportMetric]:
    """Create all report metrics; those with missing assets give the reason in `absent`.

    An asset is loaded when it is first used, and models cache the reports that they have read: use one list for many
    runs over the same references.
    """
    readers = _readers(device)
    return [_metric(name, what, needed, score, assets, readers) for name, what, needed, score in _recipes()]


def load_asset(name: str, folder: Path) -> None:
    """Load one asset as its metrics would.

    Raises:
        SettingsError: no metric needs an asset of that name.
        InputError: the asset cannot be read or does not match.
    """
    readers = _readers("cpu")
    if name not in readers:
        raise SettingsError(f"unknown asset {name!r}{suggestion(name, readers)}; choose from: {', '.join(readers)}")
    readers[name](folder)


def _readers(device: str) -> Readers:
    return {
        PUNKT.name: cache(nltk_tokenizer),
        WORDNET.name: cache(Synonyms),
        ROBERTA.name: cache(partial(BertScore, device=device)),
        CHEXBERT.name: cache(partial(Chexbert, device=device)),
        RADGRAPH.name: cache(partial(RadGraph, device=device)),
        RATESCORE.name: cache(partial(RateScore, device=device)),
    }


def _recipes() -> list[tuple[str, str, tuple[AssetNeed, ...], Score]]:
    """Name, description, required assets and score function of each metric."""
    labels: list[tuple[str, str, tuple[AssetNeed, ...], Score]] = [
        (
            f"chexbert_f1_{average}{count}",
            f"F1 of CheXbert's labels, {average} over {count} conditions, as f1chexbert",
            (CHEXBERT,),
            partial(label_f1_result, conditions=conditions, macro=average == "macro"),
        )
        for count, conditions in LABEL_SETS.items()
        for average in ("micro", "macro")
    ]
    graphs: list[tuple[str, str, tuple[AssetNeed, ...], Score]] = [
        (name, what, (RADGRAPH,), partial(radgraph_result, score=score))
        for name, what, score in (
            ("radgraph_paper", "the paper's RadGraph: mean of the F1s of entities and of relations", paper_f1),
            ("radgraph_entity", "F1 of RadGraph's entities", entity_f1),
            ("radgraph_relation", "F1 of RadGraph's relations", relation_f1),
            ("radgraph_er", "RG_ER of the radgraph package: entities, and whether they have a relation", partial_f1),
        )
    ]
    return [
        ("bleu_paper", "the paper's BLEU: mean of nltk's sentence BLEU-4, smoothed", (PUNKT,), sentence_bleu_result),
        ("bleu4_sacrebleu", "corpus BLEU-4 of sacrebleu: 13a tokens, cased, smoothed", (), sacrebleu_result),
        ("bleu4_coco", "corpus BLEU-4 as COCO's: lower case, no punctuation, not smoothed", (), coco_bleu_result),
        ("rouge_l", "the paper's ROUGE-L: F1 of rouge-score, stemmed", (), rouge_l_result),
        ("meteor", "the paper's METEOR: nltk's", (PUNKT, WORDNET), meteor_result),
        ("bertscore", "the paper's BERTScore: F1, roberta-large, not rescaled", (ROBERTA,), bertscore_result),
        ("chexbert_cosine", "the paper's CheXbert: cosine of embeddings", (CHEXBERT,), cosine_result),
        *labels,
        *graphs,
        ("ratescore", "the paper's RaTEScore: entities and their synonyms", (RATESCORE,), ratescore_result),
    ]


def _metric(
    name: str, what: str, needed: Sequence[AssetNeed], score: Score, assets: Assets, readers: Readers
) -> ReportMetric:
    def compute(predictions: Sequence[str], references: Sequence[str]) -> MetricResult:
        folders = ((need.name, assets[need.name]) for need in needed)
        loaded = [readers[asset](folder) for asset, folder in folders if isinstance(folder, Path)]
        return score(name, *loaded, predictions, references)

    located = [assets.get(need.name, MissingAsset(f"the asset {need.name} is missing")) for need in needed]
    reasons = [asset.reason for asset in located if isinstance(asset, MissingAsset)]
    return ReportMetric(
        name=name,
        what=what,
        assets=tuple(need.name for need in needed),
        absent="; ".join(reasons) or None,
        compute=compute,
    )
