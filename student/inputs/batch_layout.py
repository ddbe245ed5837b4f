"""Positions of images, their text rows and labels in a batch, computed once, on the CPU, during collation.

On a GPU, each of these operations would make the host wait for all queued kernels. B samples, L positions, K images,
N patches per image, R text rows, T labels in the batch.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, TypeVar

import torch
from jaxtyping import Int
from torch import Tensor

from ...choices import AttentionRows
from .spans import IGNORED_LABEL, ImageSpans, TextRows, attended_rows, find_images

Record = TypeVar("Record")


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerLabels:
    """The labels of a batch, sample by sample, left to right."""

    sample: Int[Tensor, " labels"]
    """Index of the sample of each label."""
    position: Int[Tensor, " labels"]
    """Position in the sample whose output predicts the label: one before the label's own position."""
    token: Int[Tensor, " labels"]
    number: Int[Tensor, " labels"]
    """Number of labels before it in the same sample."""
    of_sample: Int[Tensor, " batch"]
    """Number of labels of each sample."""
    longest: int
    """Maximum number of labels of a sample."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchLayout:
    """Positions in a batch, as tensors on its device, and counts that the host needs."""

    images: ImageSpans
    rows: TextRows | None
    """The rows of M_a; None in a batch without images."""
    labels: AnswerLabels
    padded_left: bool
    """Whether a token has padding before it. Only then does causal attention need a padding mask, which takes memory
    and excludes the fastest kernels."""
    targets: int | None = None
    """Images with a target of L_att; None means all."""

    @classmethod
    def of(
        cls,
        input_ids: Int[Tensor, "batch length"],
        attention_mask: Int[Tensor, "batch length"],
        labels: Int[Tensor, "batch length"],
        *,
        image_token_id: int,
        patches: int,
        attention_rows: AttentionRows = "question",
    ) -> "BatchLayout":
        """Compute the layout of a batch, on its device.

        Raises:
            InputError: a sample was truncated inside an image, or an image has no question, or no answer, after it.
        """
        images = find_images(input_ids, image_token_id, patches)
        rows = None
        if images.count:
            rows = attended_rows(attention_rows, input_ids, attention_mask, labels, images, image_token_id)
        return cls(
            images=images,
            rows=rows,
            labels=_find_labels(labels),
            padded_left=bool((attention_mask[:, 1:] > attention_mask[:, :-1]).any()),
        )

    @property
    def prompt_ends(self) -> Int[Tensor, " batch"]:
        """Position of each prompt's last token, which predicts the answer's first; 0 in a sample without an answer."""
        ends = torch.zeros_like(self.labels.of_sample)
        first = self.labels.number == 0
        return ends.index_put((self.labels.sample,), torch.where(first, self.labels.position, 0), accumulate=True)

    @property
    def counts(self) -> tuple[int, int, int]:
        """(answer tokens, images, images with a target of L_att) of the batch, without waiting for the device."""
        images = self.images.count
        return self.labels.sample.shape[0], images, images if self.targets is None else self.targets

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "BatchLayout":
        """Copy the layout to a device."""
        return with_tensors(self, lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "BatchLayout":
        """Copy the layout to pinned memory; called by torch's DataLoader."""
        return with_tensors(self, lambda tensor: tensor.pin_memory())


def _find_labels(labels: Int[Tensor, "batch length"]) -> AnswerLabels:
    """Find the labels, except that of the first position, which no output predicts."""
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
    """Apply `change` to all tensors in a dataclass and in its nested dataclasses."""

    def apply(value: Any) -> Any:
        if isinstance(value, Tensor):
            return change(value)
        return with_tensors(value, change) if is_dataclass(value) else value

    values = {field.name: apply(getattr(record, field.name)) for field in fields(record)}  # type: ignore[arg-type]
    return type(record)(**values)
