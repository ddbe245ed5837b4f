"""Generating a student's answers, batch by batch, with any decoding method."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from ...errors import InputError, SettingsError
from ...progress import Progress
from ...teacher_cache.store import TeacherStore
from ..inputs.batch_layout import with_tensors
from ..inputs.collation import Collator, Pixels, Sample, encode_questions, encode_text
from ..inputs.spans import find_images
from ..loading.student_loading import Student
from ..transfer import to_device
from . import Decoding
from .core.batch_run import Run
from .core.cost import Cost
from .core.prompt import Prompt
from .method_calls import call_method, check_ids

Finish = Literal["end", "length", "empty"]
"""How an answer ended: at an end token, at `max_new_tokens`, or without any text."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """A student's answer, and its cost."""

    text: str
    finish: Finish
    forwards: int
    """Forward passes of one sequence through the language model, without those of the vision tower."""


def generate_answers(
    student: Student,
    samples: Sequence[Sample],
    decoding: Decoding,
    *,
    batch_size: int,
    progress: Progress,
    on_batch: Callable[[Sequence[Sample], list[Answer]], None] | None = None,
) -> list[Answer]:
    """Answer every sample, in order; `on_batch` is called with each batch's answers.

    Raises:
        InputError: an image cannot be read, a question has no image but the method needs one, a prompt and its answer
            are longer than the student's positions, or logits are not finite.
    """
    for sample in samples:  # check all samples before answering the first
        check_length(student, sample, len(encode_text(student, sample, with_answer=False)[0]), decoding.max_new_tokens)
    progress.start(f"answering ({decoding.name})", len(samples))
    answers: list[Answer] = []
    for batch in _batches(samples, batch_size):
        batch_answers = answer_batch(student, batch, decoding)
        answers += batch_answers
        if on_batch is not None:
            on_batch(batch, batch_answers)
        progress.advance(len(batch))
    return answers


@torch.inference_mode()
def answer_batch(
    student: Student, batch: Sequence[Sample], decoding: Decoding, pixels: Sequence[Pixels] | None = None
) -> list[Answer]:
    """Answer one batch of samples; except for rounding, answers do not depend on the other samples in the batch.

    Pass `pixels` if the images are read elsewhere.

    Raises:
        InputError: an image cannot be read, a question has no image but the method needs one, a prompt and its answer
            are longer than the student's positions, logits are not finite, or the method returns no token ids, ids
            outside of the vocabulary, or more than `max_new_tokens`; or a method that is not medalign's fails.
    """
    method = decoding.method
    without_image = [sample.question_id for sample in batch if not sample.images]
    if method.needs_image and without_image:
        raise InputError(
            f"{method.name} decoding needs an image, but question {without_image[0]!r} has none. Use another decoding "
            "method (`medalign student decodings` lists them)"
        )
    check_pixels(student.features, decoding)
    run = start_run(student, batch, decoding.max_new_tokens, pixels)
    tokens = call_method(run, decoding)
    forwards = run.cost.forwards.tolist()
    return [_answer(student, row, passes, decoding) for row, passes in zip(tokens, forwards, strict=True)]


def check_pixels(features: TeacherStore | None, decoding: Decoding) -> None:
    """Check that a method that reads pixels is not used with a student that is shown a store's features instead.

    Raises:
        SettingsError: it is.
    """
    if features is not None and decoding.method.needs_pixels:
        raise SettingsError(
            f"{decoding.name} decoding reads the pixels of images, but this student is shown the features of the "
            f"teacher store {features.location} instead. Use another decoding method (`medalign student decodings` "
            "lists them)"
        )


def check_length(student: Student, sample: Sample, tokens: int, max_new_tokens: int) -> None:
    """Check that a prompt and its longest answer fit into the language model's positions.

    Raises:
        InputError: they do not fit.
    """
    limit = student.model.max_positions
    if tokens + max_new_tokens <= limit:
        return
    help_ = (
        f"Pass --max-new-tokens {limit - tokens} or less"
        if tokens < limit
        else "Shorten the question or its history, or use fewer images"
    )
    raise InputError(
        f"question {sample.question_id!r}: the prompt has {tokens} tokens, "
        f"{len(sample.images) * student.model.patches} "
        f"of them for images. With max_new_tokens {max_new_tokens}, this is more than the {limit} positions of the "
        f"student's language model. {help_}"
    )


def start_run(
    student: Student, batch: Sequence[Sample], max_new_tokens: int, pixels: Sequence[Pixels] | None = None
) -> Run:
    """Prepare a batch for decoding methods: prompts padded on the left, images encoded.

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
    pixel_values, E_v = inputs.get("pixel_values"), inputs.get("E_v")
    if pixel_values is not None:
        pixel_values = pixel_values.to(next(student.model.stock.model.vision_tower.parameters()).dtype)
    shown = pixel_values if E_v is None else E_v
    prompt = Prompt(
        input_ids=inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        images=with_tensors(images, lambda tensor: to_device(tensor, device)),
        image_tokens=None if shown is None else student.model.image_tokens(shown),
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
    """Decode the text up to the first end token.

    Raises:
        InputError: a token id is outside of the vocabulary, or the answer is longer than `max_new_tokens`.
    """
    ids: list[int] = tokens.tolist()
    end = next((position for position, token in enumerate(ids) if token in student.end_tokens), None)
    check_ids(ids[:end], student.model.config.text_config.vocab_size, decoding)
    text: Any = student.tokenizer.decode(ids[:end], skip_special_tokens=True)
    finish: Finish = "length" if end is None and len(ids) >= decoding.max_new_tokens else "end"
    return Answer(text=text.strip(), finish=finish if text.strip() else "empty", forwards=forwards)


def _batches(samples: Sequence[Sample], size: int) -> Iterator[Sequence[Sample]]:
    for start in range(0, len(samples), size):
        yield samples[start : start + size]
