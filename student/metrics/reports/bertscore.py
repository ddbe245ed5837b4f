"""BERTScore (Zhang et al. 2020): greedy cosine matching of contextual token embeddings.

As in the paper, with bert_score's settings for English: roberta-large up to layer 17, F1, without inverse document
frequency and rescaling.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import AutoModel

from ....errors import InputError
from ..result import MetricResult, mean_result
from .transformer import LONGEST, in_batches, load_pretrained, load_tokenizer

LAYER = 17
"""Layer of roberta-large whose output is compared; bert_score chose it on WMT16."""

# N tokens, including the two special tokens, D width


class BertScore:
    """A RoBERTa whose token embeddings are compared; embeddings of texts are cached."""

    def __init__(self, folder: Path, *, layer: int = LAYER, device: str = "cpu", batch_size: int = 16) -> None:
        """Load the model.

        Raises:
            InputError: the model cannot be read, is not a RoBERTa, or has too few layers.
        """
        model = load_pretrained(AutoModel, folder)
        layers = getattr(getattr(model, "encoder", None), "layer", None)
        if layers is None or model.config.model_type != "roberta" or len(layers) < layer:
            count = 0 if layers is None else len(layers)
            raise InputError(
                f"{folder} is not a roberta-large: BERTScore needs a RoBERTa with at least {layer} layers, not "
                f"a {model.config.model_type} with {count} layers"
            )
        model.encoder.layer = layers[:layer]  # later layers are not used
        self._model, self._tokenizer = model.to(device), load_tokenizer(folder)
        self._device, self._batch_size = device, batch_size
        self._seen: dict[str, Tensor] = {}

    def f1(self, predictions: Sequence[str], references: Sequence[str]) -> list[float]:
        """F1 of each pair; 0 if either text is empty."""
        self._read([*predictions, *references])
        pairs = zip(predictions, references, strict=True)
        return [greedy_f1(self._seen[predicted.strip()], self._seen[expected.strip()]) for predicted, expected in pairs]

    @torch.no_grad()
    def _read(self, texts: Sequence[str]) -> None:
        for batch in in_batches([text.strip() for text in texts], self._seen, self._batch_size):
            # Add a space before the first word, as before all other words.
            inputs = self._tokenizer(
                [f" {text}" if text else "" for text in batch],
                max_length=LONGEST,
                truncation=True,
                padding=True,
                return_tensors="pt",
            ).to(self._device)
            states = self._model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])[0]
            for text, state, mask in zip(batch, states, inputs["attention_mask"], strict=True):
                self._seen[text] = state[mask.bool()].cpu()


def greedy_f1(predicted_ND: Float[Tensor, "n d"], expected_ND: Float[Tensor, "m d"]) -> float:
    """F1 of the mean best cosine in both directions; special tokens can be matched, but are not counted."""
    if len(predicted_ND) == 2 or len(expected_ND) == 2:
        return 0.0
    cosines = torch.nn.functional.normalize(predicted_ND, dim=-1) @ torch.nn.functional.normalize(expected_ND, dim=-1).T
    precision = cosines.amax(dim=1)[1:-1].mean()
    recall = cosines.amax(dim=0)[1:-1].mean()
    f1 = 2 * precision * recall / (precision + recall)
    return float(f1.nan_to_num())


def bertscore_result(
    name: str, scorer: BertScore, predictions: Sequence[str], references: Sequence[str]
) -> MetricResult:
    """Mean F1 over reports."""
    return mean_result(name, scorer.f1(predictions, references))
