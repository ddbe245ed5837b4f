"""Answers from a student, batch by batch, with any decoding method."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from ..errors import InputError
from ..progress import Progress
from .data import Collator, Sample, encode_sample
from .decoding import Decoding
from .decoding.core.cost import Cost
from .decoding.core.prompt import Prompt
from .decoding.core.run import Run
from .loading import Student
from .spans import find_images


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What a student said, and what it cost."""

    text: str
    forwards: int
    """Passes of one sequence through the language model; passes of the vision tower are not among them."""


def generate_answers(
    student: Student,
    samples: Sequence[Sample],
    decoding: Decoding,
    *,
    batch_size: int,
    progress: Progress,
    on_batch: Callable[[Sequence[Sample], list[Answer]], None] | None = None,
) -> list[Answer]:
    """Answer every sample, in order; `on_batch` sees each batch's answers as soon as they are there.

    Raises:
        InputError: an image cannot be read, or the method needs one where a question has none.
    """
    progress.start(f"answering ({decoding.name})", len(samples))
    answers: list[Answer] = []
    for batch in _batches(samples, batch_size):
        found = answer_batch(student, batch, decoding)
        answers += found
        if on_batch is not None:
            on_batch(batch, found)
        progress.advance(len(batch))
    return answers


@torch.inference_mode()
def answer_batch(student: Student, batch: Sequence[Sample], decoding: Decoding) -> list[Answer]:
    """Answer one batch of samples; an answer does not depend on what else is in the batch, rounding apart.

    Raises:
        InputError: an image cannot be read, or the method needs one where a question has none.
    """
    method = decoding.method
    blind = [sample.question_id for sample in batch if not sample.images]
    if method.needs_image and blind:
        raise InputError(
            f"{method.name} decoding compares what is said with the image and without, but question {blind[0]} has "
            "no image: use another decoding (`medalign student decodings` lists them)"
        )
    run = start_run(student, batch, decoding.max_new_tokens)
    tokens = method.answer(run, decoding.settings)
    forwards = run.cost.forwards.tolist()
    return [Answer(text=_text(student, row), forwards=passes) for row, passes in zip(tokens, forwards, strict=True)]


def start_run(student: Student, batch: Sequence[Sample], max_new_tokens: int) -> Run:
    """A batch of samples as decoding methods take it: prompts padded on the left, images encoded.

    Raises:
        InputError: an image cannot be read.
    """
    collate = Collator(pad_token_id=student.tokenizer.pad_token_id, pad_left=True)
    inputs = collate([encode_sample(student, sample, with_answer=False) for sample in batch])
    inputs = {name: tensor.to(student.model.device) for name, tensor in inputs.items()}
    pixels = inputs.get("pixel_values")
    if pixels is not None:
        pixels = pixels.to(next(student.model.stock.model.vision_tower.parameters()).dtype)
    prompt = Prompt(
        input_ids=inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        images=find_images(inputs["input_ids"], student.model.image_token_id, student.model.patches),
        image_tokens=None if pixels is None else student.model.image_tokens(pixels),
    )
    return Run(
        student=student,
        prompt=prompt,
        pixel_values=pixels,
        question_ids=tuple(sample.question_id for sample in batch),
        max_new_tokens=max_new_tokens,
        cost=Cost(len(batch), student.model.device),
    )


def _text(student: Student, tokens: Int[Tensor, " tokens"]) -> str:
    """The text up to the end-of-sequence token."""
    ids: list[int] = tokens.tolist()
    end = student.tokenizer.eos_token_id
    said = ids[: ids.index(end)] if end in ids else ids
    text: str = student.tokenizer.decode(said, skip_special_tokens=True)
    return text.strip()


def _batches(samples: Sequence[Sample], size: int) -> Iterator[Sequence[Sample]]:
    for start in range(0, len(samples), size):
        yield samples[start : start + size]
