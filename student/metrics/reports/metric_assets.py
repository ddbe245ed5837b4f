"""Models and data files that report metrics need: purpose, source and files of each.

This module does not import torch, because `medalign assets list` only reads this list.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class AssetNeed:
    """A folder that metrics need."""

    name: str
    purpose: str
    files: tuple[str, ...]
    """Required paths in the folder; transformers' weights, which can have several names, are checked when they are
    loaded."""
    source: str
    """Where to get it, and how to create its folder."""


PUNKT = AssetNeed(
    name="punkt",
    purpose="sentence splitting for the paper's BLEU and METEOR",
    files=("abbrev_types.txt", "collocations.tab", "ortho_context.tab", "sent_starters.txt"),
    source="NLTK data, package punkt_tab (nltk.org/data.html): the folder punkt_tab/english",
)
_PARTS = ("noun", "verb", "adj", "adv")
WORDNET = AssetNeed(
    name="wordnet",
    purpose="synonyms for METEOR",
    files=tuple(f"{kind}.{part}" for kind in ("data", "index") for part in _PARTS) + tuple(f"{p}.exc" for p in _PARTS),
    source="NLTK data, package wordnet, or WordNet 3.0's dict folder (Debian: wordnet-base, /usr/share/wordnet)",
)
ROBERTA = AssetNeed(
    name="roberta-large",
    purpose="BERTScore",
    files=("config.json",),
    source="Hugging Face, FacebookAI/roberta-large: config, tokenizer files and model.safetensors",
)
CHEXBERT = AssetNeed(
    name="chexbert",
    purpose="CheXbert cosine and label F1",
    files=("chexbert.pth", "config.json", "vocab.txt"),
    source="chexbert.pth from Hugging Face, StanfordAIMI/RRG_scorers, or from github.com/stanfordmlgroup/CheXbert; "
    "config.json, vocab.txt and tokenizer_config.json of google-bert/bert-base-uncased in the same folder",
)
RADGRAPH = AssetNeed(
    name="radgraph",
    purpose="RadGraph F1",
    files=("config.json", "weights.th", "transformer/config.json"),
    source="unpacked model.tar.gz of RadGraph 1.0 (PhysioNet, as in the paper) or radgraph-xl.tar.gz (Hugging Face, "
    "StanfordAIMI/RRG_scorers); in transformer/, config and tokenizer files of the model that its config.json names",
)
RATESCORE = AssetNeed(
    name="ratescore",
    purpose="RaTEScore",
    files=("ner/config.json", "synonyms/config.json", "rush_rules.tsv"),
    source="Hugging Face, Angelakeke/RaTE-NER-Deberta in ner/ and FremyCompany/BioLORD-2023-C in synonyms/; "
    "rush_rules.tsv of medspacy (resources/en)",
)
ASSETS = (PUNKT, WORDNET, ROBERTA, CHEXBERT, RADGRAPH, RATESCORE)
