"""A student's attention from the question to the image in every decoder layer, with sdpa, in one prefill.

K images, L layers, N patches.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...errors import InputError
from ..alignment.aligned_student import AlignedStudent
from ..inputs.batch_layout import with_tensors
from ..inputs.collation import Collator, Pixels, Sample, encode_questions
from ..inputs.spans import ImageSpans, TextRows, find_images, pad_rows, question_rows
from ..loading.student_loading import Student
from ..transfer import to_device


def question_attention(
    student: Student, samples: Sequence[Sample], pixels: Sequence[Pixels] | None = None
) -> Float[Tensor, "questions layers patches"]:
    """M_a at every decoder layer for a batch of questions, for the first image of each, on the CPU in float32.

    Pass `pixels` if the images are read elsewhere.

    Raises:
        InputError: an image cannot be read or comes after the question, or attention is not finite.
    """
    collate = Collator(pad_token_id=student.tokenizer.pad_token_id)
    batch = collate(encode_questions(student, samples, pixels))
    device = student.model.device
    maps = attention_of_layers(
        student.model,
        to_device(batch["input_ids"], device),
        to_device(batch["attention_mask"], device),
        to_device(batch["pixel_values"], device),
        find_questions(student.model, batch["input_ids"], batch["attention_mask"]),
    )
    counts = torch.tensor([len(sample.images) for sample in samples])
    first = counts.cumsum(0) - counts
    first_maps = maps.float().cpu()[first]
    check_finite_maps(student, first_maps, [sample.question_id for sample in samples])
    return first_maps


def check_finite_maps(student: Student, maps: Float[Tensor, "maps layers patches"], questions: Sequence[str]) -> None:
    """Check attention maps, one for each of `questions`.

    Raises:
        InputError: one is not finite.
    """
    if not bool(maps.isfinite().all()):
        bad = int((~maps.isfinite().flatten(1).all(dim=1)).nonzero()[0])
        dtype = str(student.model.stock.dtype).removeprefix("torch.")
        raise InputError(
            f"question {questions[bad]!r}: the student's attention is not finite ({dtype}). Use --dtype "
            "bfloat16 or float32, and check that the weights contain no NaN"
        )


@torch.no_grad()
def attention_of_layers(
    model: AlignedStudent,
    input_ids: Int[Tensor, "batch length"],
    attention_mask: Int[Tensor, "batch length"],
    pixel_values: Float[Tensor, "images 3 size size"],
    questions: tuple[ImageSpans, TextRows] | None = None,
    *,
    layers: Sequence[int] | None = None,
) -> Float[Tensor, "images layers patches"]:
    """Attention from question tokens to image tokens at `layers` (None: all), mean over heads and question tokens.

    The same rows as M_a in L_att, not normalized, with W applied. Padding can be on either side. Each layer computes
    the questions' rows in addition to its sdpa kernel, and keeps only [K, N] values. Compute `questions` on the CPU
    with `find_questions` to avoid waiting for a GPU.
    """
    if questions is None:
        questions = find_questions(model, input_ids, attention_mask)
    images = with_tensors(questions[0], lambda tensor: to_device(tensor, input_ids.device))
    rows = with_tensors(questions[1], lambda tensor: to_device(tensor, input_ids.device))
    chosen = range(len(model.decoder_layers)) if layers is None else layers
    with model.observe(images, rows, layers=chosen) as seen:
        model.llava(
            input_ids=input_ids,
            attention_mask=attention_mask,
            pixel_values=pixel_values,
            logits_to_keep=1,
            use_cache=False,
        )
    return torch.stack([seen.attention_at(layer) for layer in chosen], dim=1)


def find_questions(
    model: AlignedStudent, input_ids: Int[Tensor, "batch length"], attention_mask: Int[Tensor, "batch length"]
) -> tuple[ImageSpans, TextRows]:
    """Find the images and their questions in prompts without answers, on the prompts' device.

    Raises:
        InputError: an image has no text after it.
    """
    images = find_images(input_ids, model.image_token_id, model.patches)
    rows = question_rows(input_ids, attention_mask, None, images, model.image_token_id)
    return images, pad_rows(rows)
