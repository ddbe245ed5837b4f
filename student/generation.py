"""Answers from a student: batched, with a KV cache, greedy, beam or nucleus."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from ..progress import Progress
from .data import Collator, Sample, encode_sample
from .loading import Student

DecodingName = Literal["greedy", "beam", "nucleus"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Decoding:
    """How an answer is searched for."""

    name: DecodingName = "greedy"
    max_new_tokens: int = 128
    num_beams: int = 5
    """Beams of `beam`; the paper's default decoding uses 5."""
    top_p: float = 0.9
    """Probability mass that `nucleus` samples from."""
    temperature: float = 1.0
    seed: int = 0
    """Seeds `nucleus`, once for each batch, so that an interrupted run resumes with the same answers."""

    def arguments(self) -> dict[str, Any]:
        """The arguments of transformers' `generate` for this search."""
        if self.name == "beam":
            return {"do_sample": False, "num_beams": self.num_beams}
        if self.name == "nucleus":
            return {"do_sample": True, "top_p": self.top_p, "temperature": self.temperature, "top_k": 0}
        return {"do_sample": False, "num_beams": 1}


def generate_answers(
    student: Student,
    samples: Sequence[Sample],
    decoding: Decoding,
    *,
    batch_size: int,
    progress: Progress,
    on_batch: Callable[[Sequence[Sample], list[str]], None] | None = None,
) -> list[str]:
    """Answer every sample, in order; `on_batch` sees each batch's answers as soon as they are there.

    Raises:
        InputError: an image cannot be read.
    """
    progress.start(f"answering ({decoding.name})", len(samples))
    answers: list[str] = []
    for batch in _batches(samples, batch_size):
        found = answer_batch(student, batch, decoding)
        answers += found
        if on_batch is not None:
            on_batch(batch, found)
        progress.advance(len(batch))
    return answers


@torch.no_grad()
def answer_batch(student: Student, batch: Sequence[Sample], decoding: Decoding) -> list[str]:
    """Answer one batch of samples."""
    if decoding.name == "nucleus":
        torch.manual_seed(decoding.seed)
    collate = Collator(pad_token_id=student.tokenizer.pad_token_id, pad_left=True)
    inputs = collate([encode_sample(student, sample, with_answer=False) for sample in batch])
    del inputs["labels"]
    inputs = {name: tensor.to(student.model.device) for name, tensor in inputs.items()}
    generated = student.model.generate(
        **inputs,
        **decoding.arguments(),
        max_new_tokens=decoding.max_new_tokens,
        pad_token_id=student.tokenizer.pad_token_id,
        eos_token_id=student.tokenizer.eos_token_id,
    )
    new = generated[:, inputs["input_ids"].shape[1] :]
    return [text.strip() for text in student.tokenizer.batch_decode(new, skip_special_tokens=True)]


def _batches(samples: Sequence[Sample], size: int) -> Iterator[Sequence[Sample]]:
    for start in range(0, len(samples), size):
        yield samples[start : start + size]
