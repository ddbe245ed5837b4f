"""A RadGraph archive as published (`radgraph-xl.tar.gz`, PhysioNet's `model.tar.gz`), unpacked into a folder.

It contains config.json, weights.th and vocabulary/. The transformer's weights are in weights.th; its config.json and
tokenizer files (of the model that the archive's config.json names) are in transformer/.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from .....errors import InputError
from ..transformer import empty_model, fill_strictly, load_tokenizer, read_json, read_weights
from .span_model import SpanModel, SpanSettings

TRANSFORMER = "transformer"
_ENCODER = "_embedder.token_embedder_bert._matched_embedder.transformer_model."
_UNUSED = ("_coref.", "_events.")
"""Parts of DyGIE++ that RadGraph does not use."""


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A loaded RadGraph archive."""

    dataset: str
    """Name of the annotation in the model: `radgraph-xl`; `None` and `radgraph` are RadGraph 1.0."""
    entity_labels: tuple[str, ...]
    relation_labels: tuple[str, ...]
    tokenizer: PreTrainedTokenizerBase
    encoder: Any
    """A transformers encoder."""
    spans: SpanModel
    longest: int
    """Maximum number of tokens of the encoder, including the two special tokens."""

    @torch.no_grad()
    def embed(self, words: list[str]) -> Float[Tensor, "words width"]:
        """One vector per word: the mean of its tokens, or zero without tokens; long reports are split into parts."""
        pieces: list[list[int]] = [self.tokenizer.encode(word, add_special_tokens=False) for word in words]
        flat = [piece for word in pieces for piece in word]
        step = self.longest - 2
        parts = [self._encode(flat[start : start + step]) for start in range(0, len(flat), step)]
        if not parts:
            device = next(self.encoder.parameters()).device
            return torch.zeros(len(words), self.encoder.config.hidden_size, device=device)
        states = torch.cat(parts).split([len(word) for word in pieces])
        return torch.stack([state.sum(dim=0) / max(len(state), 1) for state in states])

    def _encode(self, pieces: list[int]) -> Float[Tensor, "pieces width"]:
        ids = torch.tensor([[self.tokenizer.cls_token_id, *pieces, self.tokenizer.sep_token_id]])
        ids = ids.to(next(self.encoder.parameters()).device)
        states: Tensor = self.encoder(input_ids=ids, attention_mask=torch.ones_like(ids))[0]
        return states[0, 1:-1]


def load_archive(folder: Path, device: str = "cpu") -> Archive:
    """Load an unpacked archive; every weight that RadGraph uses must be present and match.

    Raises:
        InputError: a file is missing or unreadable, the weights do not match, or it is another DyGIE++ model.
    """
    config = read_json(folder / "config.json")
    settings, longest = _read_settings(config, folder)
    dataset, entity_labels, relation_labels = _read_labels(folder / "vocabulary")
    tokenizer = load_tokenizer(folder / TRANSFORMER)
    encoder = empty_model(folder / TRANSFORMER)
    spans = SpanModel(
        encoder.config.hidden_size,
        settings,
        entity_labels=len(entity_labels),
        relation_labels=len(relation_labels),
    )
    path = folder / "weights.th"
    weights = {key: value for key, value in read_weights(path).items() if not key.startswith(_UNUSED)}
    ours = {key: value for key, value in weights.items() if not key.startswith(_ENCODER)}
    fill_strictly(
        encoder, {key.removeprefix(_ENCODER): value for key, value in weights.items() if key not in ours}, path
    )
    fill_strictly(spans, {_rename(key, dataset, settings.layers): value for key, value in ours.items()}, path)
    return Archive(
        dataset=dataset,
        entity_labels=entity_labels,
        relation_labels=relation_labels,
        tokenizer=tokenizer,
        encoder=encoder.to(device),
        spans=spans.to(device),
        longest=longest,
    )


def _read_settings(config: dict[str, Any], folder: Path) -> tuple[SpanSettings, int]:
    try:
        model, network = config["model"], config["model"]["feedforward_params"]
        losses, modules = model["loss_weights"], model["modules"]
        if losses["coref"] > 0 or losses["events"] > 0 or modules["coref"].get("coref_prop", 0) > 0:
            raise InputError(f"{folder} is a DyGIE++ model with coreference or events, not a RadGraph")
        settings = SpanSettings(
            max_span_width=model["max_span_width"],
            feature_size=model["feature_size"],
            spans_per_word=modules["relation"]["spans_per_word"],
            layers=network["num_layers"],
            hidden=network["hidden_dims"],
        )
        return settings, int(model["embedder"]["token_embedders"]["bert"]["max_length"])
    except (KeyError, TypeError) as error:
        raise InputError(f"{folder / 'config.json'} is not RadGraph's: {type(error).__name__} {error}") from error


def _read_labels(folder: Path) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """Read the annotation's name, entity labels without the empty label, and relation labels, in the model's order."""
    label_files = sorted(folder.glob("*__ner_labels.txt"))
    if len(label_files) != 1:
        raise InputError(f"{folder} has {len(label_files)} files *__ner_labels.txt, but RadGraph has one")
    dataset = label_files[0].name.removesuffix("__ner_labels.txt")
    try:
        entities = label_files[0].read_text(encoding="utf-8").removesuffix("\n").split("\n")
        relations = (folder / f"{dataset}__relation_labels.txt").read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise InputError(f"{folder} has no relation labels: {error}") from error
    if entities[0] != "":
        raise InputError(f"{label_files[0]} starts with {entities[0]!r}, not with the empty label")
    return dataset, tuple(entities[1:]), tuple(label for label in relations if label)


def _rename(key: str, dataset: str, layers: int) -> str:
    """Rename one of AllenNLP's weights; unknown weights keep their names, and are refused when they are loaded."""
    entity, relation = re.escape(f"{dataset}__ner_labels"), re.escape(f"{dataset}__relation_labels")
    inner = r"0\._module\._linear_layers\.(\d+)"
    rules = (
        (r"_endpoint_span_extractor\._span_width_embedding\.", "span_width_embedding."),
        (rf"_ner\._ner_scorers\.{entity}\.{inner}\.", r"entity_scorer.\1.0."),
        (rf"_ner\._ner_scorers\.{entity}\.1\._module\.", f"entity_scorer.{layers}."),
        (rf"_relation\._mention_pruners\.{relation}\._scorer\.{inner}\.", r"span_scorer.\1.0."),
        (rf"_relation\._mention_pruners\.{relation}\._scorer\.1\._module\.", f"span_scorer.{layers}."),
        (rf"_relation\._relation_feedforwards\.{relation}\._linear_layers\.(\d+)\.", r"relation_scorer.\1.0."),
        (rf"_relation\._relation_scorers\.{relation}\.", f"relation_scorer.{layers}."),
    )
    for pattern, name in rules:
        renamed, count = re.subn(f"^{pattern}", name, key)
        if count:
            return renamed
    return key
