"""The models and data files behind report metrics: what each is for, where it is to be had, which files it has.

Nothing here loads torch: `medalign assets list` reads it alone.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class AssetNeed:
    """One folder that metrics need."""

    name: str
    purpose: str
    files: tuple[str, ...]
    """Paths in the folder that must be there; weights of transformers, which have several names, are checked on
    loading."""
    source: str
    """Where it is to be had, and how its folder is made."""


PUNKT = AssetNeed(
    name="punkt",
    purpose="sentence borders of the paper's BLEU and of METEOR",
    files=("abbrev_types.txt", "collocations.tab", "ortho_context.tab", "sent_starters.txt"),
    source="NLTK data, package punkt_tab (nltk.org/data.html): the folder punkt_tab/english",
)
_PARTS = ("noun", "verb", "adj", "adv")
WORDNET = AssetNeed(
    name="wordnet",
    purpose="synonyms of METEOR",
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
    "config.json, vocab.txt and tokenizer_config.json of google-bert/bert-base-uncased beside it",
)
RADGRAPH = AssetNeed(
    name="radgraph",
    purpose="RadGraph F1",
    files=("config.json", "weights.th", "transformer/config.json"),
    source="unpacked model.tar.gz of RadGraph 1.0 (PhysioNet, as in the paper) or radgraph-xl.tar.gz (Hugging Face, "
    "StanfordAIMI/RRG_scorers); in transformer/ config and tokenizer files of the model its config.json names",
)
RATESCORE = AssetNeed(
    name="ratescore",
    purpose="RaTEScore",
    files=("ner/config.json", "synonyms/config.json", "rush_rules.tsv"),
    source="Hugging Face, Angelakeke/RaTE-NER-Deberta in ner/ and FremyCompany/BioLORD-2023-C in synonyms/; "
    "rush_rules.tsv of medspacy (resources/en)",
)
ASSETS = (PUNKT, WORDNET, ROBERTA, CHEXBERT, RADGRAPH, RATESCORE)
