"""Where everything is in a batch: images, questions and labels, worked out once, on the CPU, when it is collated.

Worked out on a GPU, each of these reads would make the host wait for all kernels that are queued. B samples, L
positions, K images, N patches an image, R question tokens, T labels in the batch.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, TypeVar

import torch
from jaxtyping import Int
from torch import Tensor

from .spans import IGNORED_LABEL, ImageSpans, QuestionRows, find_images, pad_rows, question_rows

Record = TypeVar("Record")


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerLabels:
    """The labels of a batch, sample by sample, left to right."""

    sample: Int[Tensor, " labels"]
    """Index of the sample that holds each label."""
    position: Int[Tensor, " labels"]
    """Position in the sample whose output predicts it: the one before its own."""
    token: Int[Tensor, " labels"]
    number: Int[Tensor, " labels"]
    """How many labels of the same sample come before it."""
    of_sample: Int[Tensor, " batch"]
    """Labels of each sample."""
    longest: int
    """The most labels of a sample."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchLayout:
    """Places in a batch, as tensors on its device, and the numbers that the host needs."""

    images: ImageSpans
    questions: QuestionRows | None
    """None in a batch without images."""
    labels: AnswerLabels
    padded_left: bool
    """Whether a token has padding before it. Only then does causal attention need a mask for it, which takes memory and
    rules out the fastest kernels."""

    @classmethod
    def of(
        cls,
        input_ids: Int[Tensor, "batch length"],
        attention_mask: Int[Tensor, "batch length"],
        labels: Int[Tensor, "batch length"],
        *,
        image_token_id: int,
        patches: int,
    ) -> "BatchLayout":
        """Layout of a batch, on its device.

        Raises:
            InputError: a sample was cut inside an image, or has no question behind one.
        """
        images = find_images(input_ids, image_token_id, patches)
        questions = None
        if images.count:
            questions = pad_rows(question_rows(input_ids, attention_mask, labels, images, image_token_id))
        return cls(
            images=images,
            questions=questions,
            labels=_find_labels(labels),
            padded_left=bool((attention_mask[:, 1:] > attention_mask[:, :-1]).any()),
        )

    @property
    def counts(self) -> tuple[int, int]:
        """(answer tokens, images) of the batch; the host does not wait for them."""
        return self.labels.sample.shape[0], self.images.count

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "BatchLayout":
        """The same with its tensors on a device."""
        return with_tensors(self, lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "BatchLayout":
        """The same in memory that a GPU copies from by itself; torch's DataLoader calls it."""
        return with_tensors(self, lambda tensor: tensor.pin_memory())


def _find_labels(labels: Int[Tensor, "batch length"]) -> AnswerLabels:
    """The first position's label is predicted by nothing."""
    is_label = labels[:, 1:] != IGNORED_LABEL
    sample, position = is_label.nonzero(as_tuple=True)
    of_sample = is_label.sum(dim=1)
    return AnswerLabels(
        sample=sample,
        position=position,
        token=labels[sample, position + 1],
        number=(is_label.cumsum(dim=1) - 1)[sample, position],
        of_sample=of_sample,
        longest=int(of_sample.max()),
    )


def with_tensors(record: Record, change: Callable[[Tensor], Tensor]) -> Record:
    """A dataclass with all tensors in it, and in the dataclasses in it, replaced by what `change` makes of them."""

    def changed(value: Any) -> Any:
        if isinstance(value, Tensor):
            return change(value)
        return with_tensors(value, change) if is_dataclass(value) else value

    values = {field.name: changed(getattr(record, field.name)) for field in fields(record)}  # type: ignore[arg-type]
    return type(record)(**values)
