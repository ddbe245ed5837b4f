"""Data sets of training: questions with the teacher's targets and annotated regions of their images."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from itertools import accumulate

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import Dataset

from ...choices import AttentionTargets, VisualWeights
from ...errors import InputError
from ...teacher_cache.store import TeacherStore, TeacherTargets
from .collation import EncodedSample, Sample, encode_sample, encode_text
from .region_maps import RegionMaps
from .sample_order import rounded_up
from .spans import IGNORED_LABEL
from .student_inputs import StudentInputs


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
        visual_weights: VisualWeights = "uniform",
    ) -> None:
        """`regions` is read unless `attention_targets` is `teacher`, E_a as a target unless it is `regions`."""
        self._student = student.without_model()
        self._samples = samples
        self._store = store
        self._max_length = max_length
        self._regions = None if attention_targets == "teacher" else regions
        self._reads_attention = attention_targets != "regions"
        self._weights = visual_weights

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
        # A student that projects the teacher's features has no pixels; E_v is one of its targets, which are read later.
        no_pixels = None if self._student.features is None else _no_pixels
        encoded = encode_sample(self._student, sample, with_answer=True, pixels=no_pixels)
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
            weights=None if self._weights == "uniform" else _shares(targets.E_a[start:end]),
        )

    def _check_length(self, sample: Sample, length: int) -> None:
        if length > self._max_length:
            raise InputError(
                f"question {sample.question_id!r} has {length} tokens, more than training.max_length "
                f"{self._max_length}. Questions are never truncated: increase max_length or remove the question"
            )


def _shares(E_a: Float[Tensor, "images patches"]) -> Float[Tensor, "images patches"]:
    """Attention maps divided by their sums."""
    return E_a / E_a.sum(dim=1, keepdim=True)


def _no_pixels() -> None:
    return None


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
