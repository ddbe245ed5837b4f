"""Answers from a student: batched, with a KV cache, greedy, beam or nucleus."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from ..errors import SettingsError
from ..progress import Progress
from .data import Collator, Sample, encode_sample
from .loading import Student

DecodingName = Literal["greedy", "beam", "nucleus"]

_USED_BY: dict[str, DecodingName] = {
    "num_beams": "beam",
    "top_p": "nucleus",
    "temperature": "nucleus",
    "seed": "nucleus",
}


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
    """What `nucleus` divides logits by: below 1 sharper, above 1 flatter."""
    seed: int = 0
    """Seeds `nucleus`, once for each batch, so that an interrupted run resumes with the same answers."""

    def arguments(self) -> dict[str, Any]:
        """The arguments of transformers' `generate` for this search."""
        if self.name == "beam":
            return {"do_sample": False, "num_beams": self.num_beams}
        if self.name == "nucleus":
            return {"do_sample": True, "top_p": self.top_p, "temperature": self.temperature, "top_k": 0}
        return {"do_sample": False, "num_beams": 1}


def choose_decoding(
    name: DecodingName,
    *,
    max_new_tokens: int,
    num_beams: int | None = None,
    top_p: float | None = None,
    temperature: float | None = None,
    seed: int | None = None,
) -> Decoding:
    """The search asked for; what is `None` keeps its default.

    Raises:
        SettingsError: something is set that this search does not use, or a value is out of its range.
    """
    asked = {"num_beams": num_beams, "top_p": top_p, "temperature": temperature, "seed": seed}
    problems = [
        f"{option} is {value}, but {name} decoding does not use it; {_USED_BY[option]} does"
        for option, value in asked.items()
        if value is not None and _USED_BY[option] != name
    ]
    if num_beams is not None and num_beams < 2:
        problems.append(f"num_beams is {num_beams}; a beam search takes 2 or more, one beam is greedy")
    if top_p is not None and not 0 < top_p <= 1:
        problems.append(f"top_p is {top_p}, not above 0 and at most 1")
    if temperature is not None and temperature <= 0:
        problems.append(f"temperature is {temperature}, not above 0")
    if problems:
        raise SettingsError("decoding: " + "; ".join(problems))
    default = Decoding()
    return Decoding(
        name=name,
        max_new_tokens=max_new_tokens,
        num_beams=default.num_beams if num_beams is None else num_beams,
        top_p=default.top_p if top_p is None else top_p,
        temperature=default.temperature if temperature is None else temperature,
        seed=default.seed if seed is None else seed,
    )


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
