"""RaTEScore from local folders: tagger (RaTE-NER-Deberta), encoder of entities (BioLORD) and RuSH's rules."""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import AutoModel, AutoModelForTokenClassification

from .....errors import InputError
from ...result import MetricResult, mean_result
from ..transformer import LONGEST, load_pretrained, load_tokenizer
from .entity_matching import TYPES, Entities, labeled_runs, pair_score
from .sentences import SentenceRules

LONGEST_NAME = 30
"""Maximum number of tokens of an entity in the encoder."""


class RateScore:
    """The tagger and the encoder, with a cache of reports."""

    def __init__(self, folder: Path, *, device: str = "cpu") -> None:
        """Load tagger, encoder and rules.

        Raises:
            InputError: a part is missing, unreadable, or not from RaTEScore.
        """
        self._rules = SentenceRules(folder / "rush_rules.tsv")
        tagger, encoder = folder / "ner", folder / "synonyms"
        self._tagger, self._tagger_words = (
            load_pretrained(AutoModelForTokenClassification, tagger),
            load_tokenizer(tagger),
        )
        self._encoder, self._encoder_words = load_pretrained(AutoModel, encoder), load_tokenizer(encoder)
        self._labels = {int(number): str(label) for number, label in self._tagger.config.id2label.items()}
        unknown = {label[2:] for label in self._labels.values() if label != "O"} - set(TYPES)
        if unknown:
            raise InputError(
                f"{tagger} has the tags {', '.join(sorted(unknown))}, but RaTEScore's are {', '.join(TYPES)}"
            )
        self._tagger.to(device)
        self._encoder.to(device)
        self._device = device
        self._seen: dict[str, Entities] = {}

    def score(self, predicted: str, expected: str) -> float:
        """RaTEScore of one pair."""
        return pair_score(self.read(predicted), self.read(expected))

    def read(self, report: str) -> Entities:
        """The entities of a report."""
        if report not in self._seen:
            tagged = [entity for sentence in self._rules.split(report) for entity in self.tag(sentence)]
            names = [name for name, _ in tagged]
            self._seen[report] = Entities(types=tuple(kind for _, kind in tagged), embeddings=self._embed(names))
        return self._seen[report]

    @torch.no_grad()
    def tag(self, sentence: str) -> list[tuple[str, str]]:
        """Entities of a sentence, as decoded by the tokenizer, and their types."""
        inputs = self._tagger_words(sentence, max_length=LONGEST, truncation=True, return_tensors="pt").to(self._device)
        classes = self._tagger(**inputs).logits[0].argmax(dim=-1).tolist()[1:-1]
        tokens = self._tagger_words.convert_ids_to_tokens(inputs["input_ids"][0])[1:-1]
        runs = labeled_runs([self._labels[number] for number in classes])
        to_text = self._tagger_words.convert_tokens_to_string
        return [(to_text(tokens[first : last + 1]), kind) for first, last, kind in runs]

    @torch.no_grad()
    def _embed(self, names: list[str]) -> Float[Tensor, "entities width"]:
        """Last hidden state of the first token of each name."""
        if not names:
            return torch.zeros(0, self._encoder.config.hidden_size)
        inputs = self._encoder_words(
            names, max_length=LONGEST_NAME, truncation=True, padding=True, return_tensors="pt"
        ).to(self._device)
        states: Tensor = self._encoder(**inputs).last_hidden_state
        return states[:, 0].cpu()


def ratescore_result(
    name: str, scorer: RateScore, predictions: Sequence[str], references: Sequence[str]
) -> MetricResult:
    """Mean over pairs of reports."""
    return mean_result(
        name, [scorer.score(predicted, expected) for predicted, expected in zip(predictions, references, strict=True)]
    )
