"""CheXbert (Smit et al. 2020): a BERT with 14 heads, one for each of CheXpert's observations.

Its published file (`chexbert.pth`) contains all weights; the config.json and vocab.txt of bert-base-uncased must be in
the same folder.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ....errors import InputError
from .transformer import LONGEST, empty_model, fill_strictly, in_batches, load_tokenizer, read_weights

WEIGHTS = "chexbert.pth"
CONDITIONS = (
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
    "No Finding",
)
MAIN_CONDITIONS = ("Cardiomegaly", "Edema", "Consolidation", "Atelectasis", "Pleural Effusion")
"""The five conditions of CheXpert's competition."""
CLASSES = ("blank", "positive", "negative", "uncertain")
"""Classes of every head except the last, which distinguishes only `blank` and `positive`."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ReadReport:
    """CheXbert's output for one report."""

    embedding: Float[Tensor, " width"]
    """Last hidden state of the first token."""
    classes: tuple[int, ...]
    """Index into CLASSES, one for each of CONDITIONS."""


class _Labeler(nn.Module):
    """CheXbert's model, with the module names of the published file."""

    def __init__(self, bert: Any) -> None:
        super().__init__()
        self.bert = bert
        widths = [len(CLASSES)] * (len(CONDITIONS) - 1) + [2]
        self.linear_heads = nn.ModuleList([nn.Linear(bert.config.hidden_size, width) for width in widths])


class Chexbert:
    """CheXbert with a cache of reports."""

    def __init__(self, folder: Path, *, device: str = "cpu", batch_size: int = 16) -> None:
        """Load CheXbert.

        Raises:
            InputError: a file is missing or unreadable, or the weights do not match.
        """
        path = folder / WEIGHTS
        model = _Labeler(empty_model(folder))
        saved = read_weights(path).get("model_state_dict")
        if not isinstance(saved, dict):
            raise InputError(f"{path} has no model_state_dict; it is not CheXbert's published file")
        fill_strictly(model, {key.removeprefix("module."): tensor for key, tensor in saved.items()}, path)
        self._model, self._tokenizer = model.to(device), load_tokenizer(folder)
        self._device, self._batch_size = device, batch_size
        self._seen: dict[str, ReadReport] = {}

    def read(self, reports: Sequence[str]) -> list[ReadReport]:
        """Embedding and classes of every report; whitespace is collapsed, and the first 512 tokens are read."""
        texts = [re.sub(r"\s+", " ", report.strip()) for report in reports]
        for batch in in_batches(texts, self._seen, self._batch_size):
            self._read_batch(batch)
        return [self._seen[text] for text in texts]

    @torch.no_grad()
    def _read_batch(self, batch: list[str]) -> None:
        inputs = self._tokenizer(batch, max_length=LONGEST, truncation=True, padding=True, return_tensors="pt").to(
            self._device
        )
        hidden = self._model.bert(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])[0][:, 0]
        classes = torch.stack([head(hidden).argmax(dim=1) for head in self._model.linear_heads], dim=1)
        for text, embedding, indices in zip(batch, hidden.cpu(), classes.tolist(), strict=True):
            self._seen[text] = ReadReport(embedding=embedding, classes=tuple(indices))
