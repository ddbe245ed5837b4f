"""Answers from a student, batch by batch, with any decoding method."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from ...errors import InputError
from ...progress import Progress
from ..inputs.batch_layout import with_tensors
from ..inputs.collation import Collator, Pixels, Sample, encode_questions, encode_text
from ..inputs.spans import find_images
from ..loading.student_loading import Student
from ..transfer import to_device
from . import Decoding
from .core.batch_run import Run
from .core.cost import Cost
from .core.prompt import Prompt

Finish = Literal["end", "length", "empty"]
"""How an answer stopped: at an end token, cut off at `max_new_tokens`, or without any text."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What a student said, and what it cost."""

    text: str
    finish: Finish
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
        InputError: an image cannot be read, the method needs one where a question has none, a prompt and its answer
            are longer than the student's positions, or logits are not finite.
    """
    for sample in samples:  # all of them before the first is answered
        check_length(student, sample, len(encode_text(student, sample, with_answer=False)[0]), decoding.max_new_tokens)
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
def answer_batch(
    student: Student, batch: Sequence[Sample], decoding: Decoding, pixels: Sequence[Pixels] | None = None
) -> list[Answer]:
    """Answer one batch of samples; an answer does not depend on what else is in the batch, rounding apart.

    `pixels` are the images of each sample where something else reads them.

    Raises:
        InputError: an image cannot be read, the method needs one where a question has none, a prompt and its answer
            are longer than the student's positions, or logits are not finite.
    """
    method = decoding.method
    blind = [sample.question_id for sample in batch if not sample.images]
    if method.needs_image and blind:
        raise InputError(
            f"{method.name} decoding compares what is said with the image and without, but question {blind[0]} has "
            "no image: use another decoding (`medalign student decodings` lists them)"
        )
    run = start_run(student, batch, decoding.max_new_tokens, pixels)
    tokens = method.answer(run, decoding.settings)
    check_finite(run, decoding)
    forwards = run.cost.forwards.tolist()
    return [_answer(student, row, passes, decoding) for row, passes in zip(tokens, forwards, strict=True)]


def check_length(student: Student, sample: Sample, tokens: int, max_new_tokens: int) -> None:
    """Check that a prompt of so many tokens and its longest answer fit into the language model's positions.

    Raises:
        InputError: they do not.
    """
    limit = student.model.max_positions
    if tokens + max_new_tokens <= limit:
        return
    help_ = (
        f"ask with --max-new-tokens {limit - tokens} or less"
        if tokens < limit
        else "shorten the question or its history, or give it fewer images"
    )
    raise InputError(
        f"question {sample.question_id}: its prompt has {tokens} tokens, {len(sample.images) * student.model.patches} "
        f"of them for images, and with max_new_tokens {max_new_tokens} that is more than the {limit} positions that "
        f"this student's language model was built for: {help_}"
    )


def check_finite(run: Run, decoding: Decoding) -> None:
    """Check that a batch was answered from numbers.

    Raises:
        InputError: the logits of a question, or the scores that the method made of them, are not finite.
    """
    found = run.watch.first()
    if found is None:
        return
    sample, kind = found
    dtype = str(run.llava.dtype).removeprefix("torch.")
    start = f"question {run.question_ids[sample]}: {kind} are not finite ({decoding.name} decoding, {dtype})"
    if kind == "scores":
        raise InputError(f"{start}, though the logits are: choose smaller weights than {decoding.settings}")
    if dtype == "float16":
        raise InputError(f"{start}: float16 has no number above 65,504; use --dtype bfloat16 or float32")
    raise InputError(
        f"{start}: the student's weights hold values that are not finite, or so large that they overflow; load the "
        "weights again, or take an earlier checkpoint of the training"
    )


def start_run(
    student: Student, batch: Sequence[Sample], max_new_tokens: int, pixels: Sequence[Pixels] | None = None
) -> Run:
    """A batch of samples as decoding methods take it: prompts padded on the left, images encoded.

    Raises:
        InputError: an image cannot be read, or a prompt and its answer are longer than the student's positions.
    """
    collate = Collator(pad_token_id=student.tokenizer.pad_token_id, pad_left=True)
    encoded = encode_questions(student, batch, pixels)
    for sample, one in zip(batch, encoded, strict=True):
        check_length(student, sample, len(one.input_ids), max_new_tokens)
    inputs = collate(encoded)
    device = student.model.device
    images = find_images(inputs["input_ids"], student.model.image_token_id, student.model.patches)  # on the CPU
    inputs = {name: to_device(tensor, device) for name, tensor in inputs.items()}
    pixel_values = inputs.get("pixel_values")
    if pixel_values is not None:
        pixel_values = pixel_values.to(next(student.model.stock.model.vision_tower.parameters()).dtype)
    prompt = Prompt(
        input_ids=inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        images=with_tensors(images, lambda tensor: to_device(tensor, device)),
        image_tokens=None if pixel_values is None else student.model.image_tokens(pixel_values),
    )
    return Run(
        student=student,
        prompt=prompt,
        pixel_values=pixel_values,
        question_ids=tuple(sample.question_id for sample in batch),
        max_new_tokens=max_new_tokens,
        cost=Cost(len(batch), device),
    )


def _answer(student: Student, tokens: Int[Tensor, " tokens"], forwards: int, decoding: Decoding) -> Answer:
    """The text up to the first end token."""
    ids: list[int] = tokens.tolist()
    end = next((place for place, token in enumerate(ids) if token in student.end_tokens), None)
    text: Any = student.tokenizer.decode(ids[:end], skip_special_tokens=True)
    finish: Finish = "length" if end is None and len(ids) >= decoding.max_new_tokens else "end"
    return Answer(text=text.strip(), finish=finish if text.strip() else "empty", forwards=forwards)


def _batches(samples: Sequence[Sample], size: int) -> Iterator[Sequence[Sample]]:
    for start in range(0, len(samples), size):
        yield samples[start : start + size]
