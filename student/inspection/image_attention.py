"""Where a student looks for one question: its attention to every token of the images, at chosen layers, in one prefill.

L layers, N tokens of an image.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...errors import InputError, SettingsError
from ...teacher_cache.images import DecodedImage
from ..decoding.questions import check_text
from ..inputs.collation import prompt_ids
from ..inputs.views import Box, ImageLayout, inside
from ..loading.student_loading import Student
from ..transfer import to_device
from .question_attention import attention_of_layers, check_finite_maps, find_questions


@dataclass(frozen=True, kw_only=True, slots=True)
class AttendedCell:
    """One cell of an image, and how much of the attention on the image it gets."""

    token: int
    """Index of the cell's token among the image's tokens."""
    box: Box
    """x, y, width and height in pixels of the upright image. The box may reach into the padding around it."""
    share: float
    """The cell's part of the attention on the image, from 0 to 1, in the mean over the layers."""
    is_padding: bool
    """Whether the whole cell lies in the padding."""


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class ImageAttention:
    """The attention of one question to one image: L layers, N image tokens."""

    question: str
    width: int
    """Width of the upright image, in pixels."""
    height: int
    """Height of the upright image, in pixels."""
    layers: tuple[int, ...]
    """Zero-based decoder layers, in the order of `maps`."""
    aligned_layers: tuple[int, ...]
    """Those of `layers` that were aligned in training; empty for a base."""
    maps: Float[Tensor, "layers tokens"]
    """Attention to each image token `[L, N]`, mean over heads and question tokens; not normalized."""
    layout: ImageLayout
    """The places of the image tokens in the image."""

    @property
    def mean(self) -> Float[Tensor, " tokens"]:
        """The mean of `maps` over the layers, `[N]`."""
        return self.maps.mean(dim=0)

    @property
    def shares(self) -> tuple[float, ...]:
        """The part of the question's attention that is on this image, from 0 to 1, for each of `layers`.

        The rest is on the text, and on other images.
        """
        return tuple(self.maps.sum(dim=1).tolist())

    @property
    def mean_share(self) -> float:
        """The mean of `shares`."""
        return sum(self.shares) / len(self.shares)

    @property
    def has_padding(self) -> bool:
        """Whether any cell lies in the padding around the image."""
        return bool(self.layout.padding(self.width, self.height))

    @property
    def padding_shares(self) -> tuple[float, ...]:
        """The part of the attention on the image in cells of padding only, from 0 to 1, for each of `layers`."""
        padding = self.layout.padding(self.width, self.height)
        return tuple(_parts(self.maps)[:, padding].sum(dim=1).tolist())

    @property
    def padding_share(self) -> float:
        """The same for the mean over layers."""
        return float(_parts(self.mean)[self.layout.padding(self.width, self.height)].sum())

    @property
    def border_share(self) -> float:
        """The part of the attention on the image in the outermost cells, from 0 to 1, in the mean over layers."""
        return float(_parts(self.mean)[self.layout.border()].sum())

    def moved_from(self, before: "ImageAttention") -> float:
        """The part of the attention on the image that is on other cells than in `before`, from 0 to 1.

        Both records are of the same image. It is the total variation distance of their maps in the mean over layers,
        each divided by its sum.
        """
        return float((_parts(self.mean) - _parts(before.mean)).abs().sum()) / 2

    def top_cells(self, count: int = 5) -> tuple[AttendedCell, ...]:
        """The cells with most attention in the mean over the layers, the most attended first."""
        parts = _parts(self.mean).tolist()
        cells = [
            AttendedCell(
                token=token, box=box, share=parts[token], is_padding=inside(box, self.width, self.height) is None
            )
            for token, box in self.layout.cells()
        ]
        return tuple(sorted(cells, key=lambda cell: -cell.share)[:count])

    def summary(self) -> dict[str, Any]:
        """Shares of attention and the most attended cells, as the command prints them with `--json`."""
        return {
            "width": self.width,
            "height": self.height,
            "tokens": self.layout.tokens,
            "aligned_layers": list(self.aligned_layers),
            "share_on_image": {str(layer): share for layer, share in zip(self.layers, self.shares, strict=True)},
            "mean_share_on_image": self.mean_share,
            "padding_share": self.padding_share,
            "border_share": self.border_share,
            "top_cells": [
                {"box": list(cell.box), "share": cell.share, "is_padding": cell.is_padding} for cell in self.top_cells()
            ],
        }


def _parts(maps: Float[Tensor, "*layers tokens"]) -> Float[Tensor, "*layers tokens"]:
    """Each token's part of the attention on the image; zeros if the image has none."""
    return maps / maps.sum(-1, keepdim=True).clamp_min(torch.finfo(maps.dtype).tiny)


def read_attention(
    student: Student, images: Sequence[DecodedImage], question: str, layers: Sequence[int] | None = None
) -> tuple[ImageAttention, ...]:
    """Read the attention of a question to each of its images, in order, at `layers` (None: all).

    One forward pass over the prompt, with transformers' sdpa kernels. The question is all text after the image, as in
    L_att: also the words of the prompt template.

    Raises:
        InputError: there is no image, the prompt is longer than the student's positions, or attention is not finite.
        SettingsError: the question is empty or not valid UTF-8, or there is no such layer.
    """
    check_question(question)
    chosen = check_layers(layers, len(student.model.decoder_layers))
    if not images:
        raise InputError("attention to an image needs an image: pass one or more")
    ids = _prompt(student, question, len(images))
    device = student.model.device
    mask = torch.ones_like(ids)
    pixels = torch.stack([student.images.pixels(image.shown) for image in images])
    maps = attention_of_layers(
        student.model,
        to_device(ids, device),
        to_device(mask, device),
        to_device(pixels, device),
        find_questions(student.model, ids, mask),
        layers=chosen,
    )
    maps = maps.float().cpu()
    check_finite_maps(student, maps, [question] * len(images))
    aligned = {point.layer for point in student.model.points}
    return tuple(
        ImageAttention(
            question=question,
            width=image.width,
            height=image.height,
            layers=chosen,
            aligned_layers=tuple(layer for layer in chosen if layer in aligned),
            maps=image_maps,
            layout=student.images.layout(image.width, image.height),
        )
        for image, image_maps in zip(images, maps, strict=True)
    )


def check_question(question: str) -> None:
    """Check that a question is text.

    Raises:
        SettingsError: it is empty, or contains bytes that could not be decoded.
    """
    check_text(question)
    if not question.strip():
        raise SettingsError("the question is empty: pass the text whose attention is to be read")


def check_layers(layers: Sequence[int] | None, count: int) -> tuple[int, ...]:
    """Check layers against the number of a student's decoder layers; None means all of them.

    Raises:
        SettingsError: the student has no such layer, a layer occurs twice, or there is none.
    """
    if layers is None:
        return tuple(range(count))
    absent = [str(layer) for layer in layers if not 0 <= layer < count]
    if absent:
        raise SettingsError(f"layers: the student has no layer {', '.join(absent)}; its layers are 0 to {count - 1}")
    if not layers or len(set(layers)) < len(layers):
        raise SettingsError(f"layers: {list(layers)}: pass one or more layers, each of them once")
    return tuple(layers)


def _prompt(student: Student, question: str, images: int) -> Int[Tensor, "1 length"]:
    """Token ids of the prompt with the question and its images.

    Raises:
        InputError: the prompt is longer than the positions of the student's language model.
    """
    ids = prompt_ids(student, student.template(student.tokenizer, (), question, images))
    if len(ids) > student.model.max_positions:
        raise InputError(
            f"the prompt has {len(ids)} tokens, {images * student.model.patches} of them for images, but the student's "
            f"language model has {student.model.max_positions} positions. Shorten the question or use fewer images"
        )
    return torch.tensor([ids])
