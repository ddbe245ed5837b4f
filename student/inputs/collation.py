"""Encoding questions with images and collating them to batches: tokens, labels, pixels, and the teacher's targets."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...choices import AttentionRows
from ...errors import InputError
from ...teacher_cache.images import ChangedImage, describe_change, read_expected_image
from ..prompts.control_tokens import IMAGE_PLACEHOLDER, as_text, leading_ids, text_ids
from ..prompts.templates import Prompt
from .batch_layout import BatchLayout
from .image_processing import StudentImages
from .spans import IGNORED_LABEL
from .student_inputs import StudentInputs


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleImage:
    """One image of a sample: its path, and the hashes that verify its content and are its keys in a store."""

    path: Path
    image_hash: str
    """Plain SHA-256 of the file's bytes; a file with another image is an error."""
    pixel_hash: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One question, with its images before it and earlier turns in between."""

    question_id: str
    question: str
    answer: str
    images: tuple[SampleImage, ...] = ()
    history: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedSample:
    """A sample ready for collation. L positions, I images."""

    input_ids: Int[Tensor, " length"]
    labels: Int[Tensor, " length"]
    pixel_values: Float[Tensor, "images 3 size size"] | None
    E_v: Float[Tensor, "images patches channels"] | None = None
    S: Float[Tensor, "images patches patches"] | None = None
    """Cosines from a Gram store, which has no E_v."""
    E_a: Float[Tensor, "images patches"] | None = None
    regions: Float[Tensor, "images patches"] | None = None
    """Share of each patch inside the image's annotated regions; zero for an image without them."""
    weights: Float[Tensor, "images patches"] | None = None
    """Weight of each patch in L_vis, with sum 1; None means equal weights."""


def prompt_ids(student: StudentInputs, prompt: Prompt) -> list[int]:
    """Token ids of a prompt with every `<image>` expanded to the image's tokens."""
    tokenizer = student.tokenizer
    first, *rest = prompt.text.split(IMAGE_PLACEHOLDER)
    ids = leading_ids(tokenizer) if prompt.add_special_tokens else []
    ids += text_ids(tokenizer, first)
    for piece in rest:
        ids += [student.image_token_id] * student.images.grid.patches
        ids += text_ids(tokenizer, piece, continued=prompt.joint)
    return ids


def answer_ids(student: StudentInputs, prompt: Prompt, answer: str) -> list[int]:
    """Token ids of an answer after a prompt, including its end token."""
    tokenizer = student.tokenizer
    text = prompt.answer_prefix + as_text(answer, tokenizer) + prompt.answer_end
    ids = text_ids(tokenizer, text, continued=prompt.joint)
    return ids if prompt.answer_end else [*ids, int(tokenizer.eos_token_id)]


Pixels = Callable[[], Tensor | None]
"""Returns the pixels of a sample's images [images, 3, size, size] once they are read, or their E_v [images, patches,
channels] for a student that projects the teacher's features; `None` if it has no images."""


def encode_sample(
    student: StudentInputs, sample: Sample, *, with_answer: bool, pixels: Pixels | None = None
) -> EncodedSample:
    """Tokenize a sample and read its images; labels cover only the answer and its end token.

    Pass `pixels` if the images are read elsewhere.

    Raises:
        InputError: an image cannot be read or is not the sample's image; the message names the question.
    """
    ids, labels = encode_text(student, sample, with_answer=with_answer)
    shown = read_shown(student, sample) if pixels is None else pixels()
    return EncodedSample(
        input_ids=torch.tensor(ids),
        labels=torch.tensor(labels),
        pixel_values=shown if student.features is None else None,
        E_v=None if student.features is None else shown,
    )


def encode_questions(
    student: StudentInputs, samples: Sequence[Sample], pixels: Sequence[Pixels] | None = None
) -> list[EncodedSample]:
    """Encode samples without their answers; pass `pixels` if the images are read elsewhere.

    Raises:
        InputError: an image cannot be read or is not its sample's image.
    """
    readers = [None] * len(samples) if pixels is None else pixels
    return [
        encode_sample(student, sample, with_answer=False, pixels=images)
        for sample, images in zip(samples, readers, strict=True)
    ]


def encode_text(student: StudentInputs, sample: Sample, *, with_answer: bool) -> tuple[list[int], list[int]]:
    """Token ids and labels of a sample, without reading its images."""
    prompt = student.template(student.tokenizer, sample.history, sample.question, len(sample.images))
    ids = prompt_ids(student, prompt)
    labels = [IGNORED_LABEL] * len(ids)
    if with_answer:
        answer = answer_ids(student, prompt, sample.answer)
        ids, labels = ids + answer, labels + answer
    return ids, labels


def read_shown(
    student: StudentInputs, sample: Sample
) -> Float[Tensor, "images 3 size size"] | Float[Tensor, "images patches channels"] | None:
    """Read what the images of a sample are for the student: pixels, or E_v if it projects the teacher's features.

    Raises:
        InputError: an image cannot be read or is not the sample's image; the message names the question.
        StoreError: the store has no row of an image, or a damaged one.
    """
    if student.features is None or not sample.images:
        return read_pixels(student.images, sample)
    hashes, pixel_hashes = zip(*((image.image_hash, image.pixel_hash) for image in sample.images), strict=True)
    return student.features.read(list(hashes), list(pixel_hashes)).E_v


def read_pixels(images: StudentImages, sample: Sample) -> Float[Tensor, "images 3 size size"] | None:
    """Read the images of a sample and preprocess them for the student.

    Raises:
        InputError: an image cannot be read or is not the sample's image; the message names the question.
    """
    if not sample.images:
        return None
    pixels = []
    for image in sample.images:
        try:
            decoded = read_expected_image(image.path, image.image_hash, image.pixel_hash)
            pixels.append(images.pixels(decoded.shown))
        except ChangedImage as error:
            changed = describe_change(image.path, error.expected, error.actual)
            raise InputError(f"question {sample.question_id!r}: {changed}") from error
        except InputError as error:
            raise InputError(f"question {sample.question_id!r}: cannot read {image.path}: {error}") from error
    return torch.stack(pixels)


@dataclass(frozen=True, kw_only=True, slots=True)
class Collator:
    """Pads encoded samples to one batch; images are stacked in reading order."""

    pad_token_id: int
    pad_left: bool = False
    """Left for generation, right for training."""

    def __call__(self, encoded: Sequence[EncodedSample]) -> dict[str, Tensor]:
        length = max(len(sample.input_ids) for sample in encoded)
        batch = {
            "input_ids": self._pad([sample.input_ids for sample in encoded], length, self.pad_token_id),
            "labels": self._pad([sample.labels for sample in encoded], length, IGNORED_LABEL),
            "attention_mask": self._pad([torch.ones_like(sample.input_ids) for sample in encoded], length, 0),
        }
        for name in ("pixel_values", "E_v", "S", "E_a", "regions", "weights"):
            values = [getattr(sample, name) for sample in encoded if getattr(sample, name) is not None]
            if values:
                batch[name] = torch.cat(values)
        return batch

    def _pad(self, rows: Sequence[Tensor], length: int, value: int) -> Int[Tensor, "batch length"]:
        padded = torch.full((len(rows), length), value, dtype=torch.long)
        for row, tokens in zip(padded, rows, strict=True):
            if self.pad_left:
                row[length - len(tokens) :] = tokens
            else:
                row[: len(tokens)] = tokens
        return padded


@dataclass(frozen=True, kw_only=True, slots=True)
class AlignmentCollator:
    """Makes batches for `AlignedStudent.forward`: padded on the right, with their layout."""

    pad_token_id: int
    image_token_id: int
    patches: int
    attention_rows: AttentionRows = "question"

    @classmethod
    def of(cls, student: StudentInputs, attention_rows: AttentionRows = "question") -> "AlignmentCollator":
        """Create the collator for a student; it does not refer to the student, which would be copied to workers."""
        return cls(
            pad_token_id=student.tokenizer.pad_token_id,
            image_token_id=student.image_token_id,
            patches=student.images.grid.patches,
            attention_rows=attention_rows,
        )

    def __call__(self, encoded: Sequence[EncodedSample]) -> dict[str, Any]:
        batch = Collator(pad_token_id=self.pad_token_id)(encoded)
        layout = BatchLayout.of(
            batch["input_ids"],
            batch["attention_mask"],
            batch["labels"],
            image_token_id=self.image_token_id,
            patches=self.patches,
            attention_rows=self.attention_rows,
        )
        if "regions" in batch and "E_a" not in batch:
            layout = replace(layout, targets=int(batch["regions"].any(dim=1).sum()))
        return {**batch, "layout": layout}
