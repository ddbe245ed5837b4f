"""Reading questions with their reference answers: attention at every decoder layer and the loss, in one forward pass.

L layers, N image tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ...errors import InputError
from ..inputs.batch_layout import BatchLayout
from ..inputs.collation import AlignmentCollator, EncodedSample, Pixels, Sample, encode_sample
from ..loading.student_loading import Student
from ..transfer import to_device
from .question_attention import check_finite_maps


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class ReadQuestion:
    """What one forward pass says about a question with one image and its reference answer."""

    attention: Float[Tensor, "layers tokens"]
    """M_a at every decoder layer, mean over heads and question tokens, not normalized; float32 on the CPU."""
    loss_lm: float | None
    """Mean negative log likelihood of the reference's tokens and its end token, in nats; None without a reference."""


@torch.no_grad()
def read_questions(
    student: Student, samples: Sequence[Sample], pixels: Sequence[Pixels] | None = None
) -> list[ReadQuestion]:
    """Read a batch of questions with one image each; attention is that of `question_attention`.

    The answers come after the questions, so they do not change the questions' attention. Pass `pixels` if the images
    are read elsewhere.

    Raises:
        InputError: a sample has no image or several, an image cannot be read, a question with its answer is longer than
            the student's positions, or attention is not finite.
    """
    batch = AlignmentCollator.of(student)(_encode(student, samples, pixels))
    layout: BatchLayout = batch["layout"]
    device = student.model.device
    moved = layout.to(device)
    layers = range(len(student.model.decoder_layers))
    with student.model.observe(moved.images, moved.rows, layers=layers) as seen:
        losses = student.model.answer_loss(
            to_device(batch["input_ids"], device), None, to_device(batch["pixel_values"], device), moved
        )
    maps = torch.stack([seen.attention_at(layer) for layer in layers], dim=1).float().cpu()
    check_finite_maps(student, maps, [sample.question_id for sample in samples])
    means = (losses / moved.labels.of_sample).tolist()
    return [
        ReadQuestion(attention=attention, loss_lm=loss if sample.answer.strip() else None)
        for attention, loss, sample in zip(maps, means, samples, strict=True)
    ]


def _encode(student: Student, samples: Sequence[Sample], pixels: Sequence[Pixels] | None) -> list[EncodedSample]:
    """Encode the samples with their answers.

    Raises:
        InputError: a sample has no image or several, or is too long.
    """
    limit = student.model.max_positions
    encoded = []
    for sample, read in zip(samples, [None] * len(samples) if pixels is None else pixels, strict=True):
        if len(sample.images) != 1:
            raise InputError(
                f"question {sample.question_id!r} has {len(sample.images)} images, but only questions with one are read"
            )
        one = encode_sample(student, sample, with_answer=True, pixels=read)
        if len(one.input_ids) > limit:
            raise InputError(
                f"question {sample.question_id!r} and its reference answer have {len(one.input_ids)} tokens, more than "
                f"the {limit} positions of the student's language model. Remove it from the manifest"
            )
        encoded.append(one)
    return encoded
