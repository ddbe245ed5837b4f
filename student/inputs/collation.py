"""Encoding questions with images and collating them to batches: tokens, labels, pixels, and the teacher's targets."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import Dataset

from ...choices import AttentionRows, AttentionTargets
from ...errors import InputError
from ...teacher_cache.images import ChangedImage, describe_change, read_expected_image
from ...teacher_cache.store import TeacherStore, TeacherTargets
from ..prompts.control_tokens import IMAGE_PLACEHOLDER, as_text, leading_ids, text_ids
from ..prompts.templates import Prompt
from .batch_layout import BatchLayout
from .image_processing import StudentImages
from .region_maps import RegionMaps
from .sample_order import rounded_up
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
"""Returns the pixels of a sample's images [images, 3, size, size] once they are read; `None` if it has no images."""


def encode_sample(
    student: StudentInputs, sample: Sample, *, with_answer: bool, pixels: Pixels | None = None
) -> EncodedSample:
    """Tokenize a sample and read its images; labels cover only the answer and its end token.

    Pass `pixels` if the images are read elsewhere.

    Raises:
        InputError: an image cannot be read or is not the sample's image; the message names the question.
    """
    ids, labels = encode_text(student, sample, with_answer=with_answer)
    return EncodedSample(
        input_ids=torch.tensor(ids),
        labels=torch.tensor(labels),
        pixel_values=read_pixels(student.images, sample) if pixels is None else pixels(),
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


class AlignmentDataset(Dataset[EncodedSample]):
    """Questions with answers and, when a store is given, the teacher's targets of their images.

    The store is opened lazily in each DataLoader worker. The student's model is not kept, so that it is not copied to
    spawned workers.
    """

    def __init__(
        self,
        student: StudentInputs,
        samples: Sequence[Sample],
        store: TeacherStore | None,
        *,
        max_length: int,
        regions: RegionMaps | None = None,
        attention_targets: AttentionTargets = "teacher",
    ) -> None:
        """`regions` is read unless `attention_targets` is `teacher`, E_a unless it is `regions`."""
        self._student = student.without_model()
        self._samples = samples
        self._store = store
        self._max_length = max_length
        self._regions = None if attention_targets == "teacher" else regions
        self._reads_attention = attention_targets != "regions"

    def __len__(self) -> int:
        return len(self._samples)

    @cached_property
    def lengths(self) -> list[int]:
        """Number of tokens of every sample, including image tokens; computed without reading images."""
        return [len(encode_text(self._student, sample, with_answer=True)[0]) for sample in self._samples]

    def check_lengths(self) -> None:
        """Raise for the first sample that is too long.

        Raises:
            InputError: a sample has more tokens than `max_length`.
        """
        for sample, length in zip(self._samples, self.lengths, strict=True):
            self._check_length(sample, length)

    def __getitem__(self, index: int) -> EncodedSample:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[EncodedSample]:
        """Return the samples of a batch; their rows are read in one call, concurrently from a remote store."""
        samples = [self._samples[index] for index in indices]
        encoded = [self._encode(sample) for sample in samples]
        images = [image for sample in samples for image in sample.images]
        if self._store is None or not images:
            return encoded
        targets = self._store.read([image.image_hash for image in images], [image.pixel_hash for image in images])
        ends = list(accumulate(len(sample.images) for sample in samples))
        return [
            self._with_targets(item, targets, end - len(sample.images), end) if sample.images else item
            for item, sample, end in zip(encoded, samples, ends, strict=True)
        ]

    def _encode(self, sample: Sample) -> EncodedSample:
        encoded = encode_sample(self._student, sample, with_answer=True)
        self._check_length(sample, len(encoded.input_ids))
        if self._regions is not None and sample.images:
            encoded = replace(encoded, regions=self._regions.of(sample.question_id, len(sample.images)))
        return encoded

    def _with_targets(self, encoded: EncodedSample, targets: TeacherTargets, start: int, end: int) -> EncodedSample:
        """Add the teacher's targets of a sample's images, which are those from `start` to `end` in the batch."""
        return replace(
            encoded,
            E_v=None if targets.E_v is None else targets.E_v[start:end],
            S=None if targets.S is None else targets.S[start:end],
            E_a=targets.E_a[start:end] if self._reads_attention else None,
        )

    def _check_length(self, sample: Sample, length: int) -> None:
        if length > self._max_length:
            raise InputError(
                f"question {sample.question_id!r} has {length} tokens, more than training.max_length "
                f"{self._max_length}. Questions are never truncated: increase max_length or remove the question"
            )


class FilledDataset(Dataset[EncodedSample]):
    """A data set padded to a multiple of a number with empty samples: one token, no label, no image.

    Every process then gets the same number of samples without repeating any, so means over an epoch are exact.
    """

    def __init__(self, samples: Dataset[EncodedSample] | Sequence[EncodedSample], *, multiple: int) -> None:
        self._samples = samples
        self._count = len(samples)  # type: ignore[arg-type]
        self._multiple = multiple

    def __len__(self) -> int:
        return rounded_up(self._count, self._multiple)

    def __getitem__(self, index: int) -> EncodedSample:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[EncodedSample]:
        real = [index for index in indices if index < self._count]
        fetch = getattr(self._samples, "__getitems__", None)
        items = (fetch(real) if fetch else [self._samples[index] for index in real]) if real else []
        return [*items, *[_empty_sample()] * (len(indices) - len(real))]


def _empty_sample() -> EncodedSample:
    return EncodedSample(
        input_ids=torch.zeros(1, dtype=torch.long), labels=torch.tensor([IGNORED_LABEL]), pixel_values=None
    )


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
        for name in ("pixel_values", "E_v", "S", "E_a", "regions"):
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
