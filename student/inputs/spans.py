"""Positions of images and of the text that attends to them in a batch of token sequences.

They are computed from tokens, padding and labels of every sample, so batches, left and right padding, several images
and text-only samples need no constants. B samples, L positions, K images in the batch, N patches per image.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn import functional

from ...choices import AttentionRows
from ...errors import InputError

IGNORED_LABEL = -100


@dataclass(frozen=True, kw_only=True, slots=True)
class TextRows:
    """The text tokens of every image whose attention to it counts: its question, its answers, or both.

    Rows are padded to the longest with their first position, because the attention of a padding token can be empty.
    """

    index: Int[Tensor, "images rows"]
    """Positions in the sample's sequence."""
    valid: Bool[Tensor, "images rows"]
    """Which of them are not padding."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageSpans:
    """The images of a batch, in reading order: sample by sample, left to right."""

    sample: Int[Tensor, " images"]
    """Index of the sample of each image."""
    positions: Int[Tensor, "images patches"]
    """Positions of each image's tokens in its sample's sequence."""

    @property
    def count(self) -> int:
        return self.sample.shape[0]


def find_images(input_ids: Int[Tensor, "batch length"], image_token_id: int, patches: int) -> ImageSpans:
    """Find each image's run of `patches` image tokens; adjacent images are separated by count.

    Raises:
        InputError: a sample's image tokens are not a multiple of `patches`, for example in a truncated sample.
    """
    is_image = input_ids == image_token_id
    counts = is_image.sum(dim=1)
    if (counts % patches != 0).any():
        sample = int((counts % patches != 0).nonzero()[0])
        raise InputError(
            f"sample {sample} of the batch has {int(counts[sample])} image tokens, not a multiple of {patches}: "
            "the sequence was truncated inside an image, or the model has a different image size"
        )
    samples, positions = is_image.nonzero(as_tuple=True)
    return ImageSpans(sample=samples[::patches], positions=positions.reshape(-1, patches))


def question_rows(
    input_ids: Int[Tensor, "batch length"],
    attention_mask: Int[Tensor, "batch length"],
    labels: Int[Tensor, "batch length"] | None,
    images: ImageSpans,
    image_token_id: int,
) -> Bool[Tensor, "images length"]:
    """Find the question tokens of every image: text after the image and before the first labeled (answer) token.

    Without labels (in generation) the question extends to the end of the prompt. The boundary comes from the labels,
    never from a search for ':', so answers may contain any text.

    Raises:
        InputError: there is no text between an image and the answer.
    """
    length = input_ids.shape[1]
    position_L = torch.arange(length, device=input_ids.device)
    is_text_BL = (attention_mask != 0) & (input_ids != image_token_id)
    after_KL = position_L > images.positions[:, -1:]
    rows_KL = is_text_BL[images.sample] & after_KL
    if labels is not None:
        labeled_KL = (labels != IGNORED_LABEL)[images.sample] & after_KL
        rows_KL &= labeled_KL.cumsum(dim=1) == 0
    if not rows_KL.any(dim=1).all():
        image = int((~rows_KL.any(dim=1)).nonzero()[0])
        raise InputError(
            f"image {image} of the batch (sample {int(images.sample[image])}) has no question token after it. Put the "
            "image before the question"
        )
    return rows_KL


def answer_rows(
    input_ids: Int[Tensor, "batch length"],
    attention_mask: Int[Tensor, "batch length"],
    labels: Int[Tensor, "batch length"],
    images: ImageSpans,
    image_token_id: int,
) -> Bool[Tensor, "images length"]:
    """Find the answer rows of every image: text after the image whose output predicts a labeled token.

    The row that predicts the label at position p is p - 1, so the first answer token's row is the last token of the
    prompt, and the end token has no row of its own. Every labeled turn after the image counts.

    Raises:
        InputError: an image has no labeled token after it.
    """
    position_L = torch.arange(input_ids.shape[1], device=input_ids.device)
    predicts_BL = functional.pad(labels[:, 1:] != IGNORED_LABEL, (0, 1))
    is_text_BL = (attention_mask != 0) & (input_ids != image_token_id)
    rows_KL = (predicts_BL & is_text_BL)[images.sample] & (position_L > images.positions[:, -1:])
    if not rows_KL.any(dim=1).all():
        image = int((~rows_KL.any(dim=1)).nonzero()[0])
        raise InputError(
            f"image {image} of the batch (sample {int(images.sample[image])}) has no answer token after it, whose "
            "attention alignment.attention_rows could supervise. Set alignment.attention_rows to question"
        )
    return rows_KL


def attended_rows(
    which: AttentionRows,
    input_ids: Int[Tensor, "batch length"],
    attention_mask: Int[Tensor, "batch length"],
    labels: Int[Tensor, "batch length"],
    images: ImageSpans,
    image_token_id: int,
) -> TextRows:
    """Find the rows of M_a in a batch with images; with `both`, a row that is in both sets counts once.

    Raises:
        InputError: an image has no question token, or no answer token, after it.
    """
    batch = (input_ids, attention_mask, labels, images, image_token_id)
    if which == "question":
        return pad_rows(question_rows(*batch))
    if which == "answer":
        return pad_rows(answer_rows(*batch))
    return pad_rows(question_rows(*batch) | answer_rows(*batch))


def pad_rows(rows_KL: Bool[Tensor, "images length"]) -> TextRows:
    """Positions of the True entries of each row."""
    counts = rows_KL.sum(dim=1)
    longest = int(counts.max())
    order = rows_KL.int().sort(dim=1, descending=True, stable=True).indices[:, :longest]
    valid = torch.arange(longest, device=rows_KL.device) < counts[:, None]
    return TextRows(index=torch.where(valid, order, order[:, :1]), valid=valid)
