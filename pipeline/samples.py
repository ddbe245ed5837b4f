"""Manifest rows as the samples that a student reads."""

from typing import Any

from ..student.data import Sample, SampleImage
from .manifest import Manifest


def manifest_samples(manifest: Manifest) -> list[Sample]:
    """One sample for every row that asks something, in order."""
    return [_sample(manifest, row) for row in manifest.questions.iter_rows(named=True)]


def _sample(manifest: Manifest, row: dict[str, Any]) -> Sample:
    images: tuple[SampleImage, ...] = ()
    if row["image"] is not None:
        path = manifest.path_of(row["image"])
        images = (SampleImage(path=path, image_hash=row["image_hash"], pixel_hash=row["pixel_hash"]),)
    return Sample(
        question_id=row["question_id"],
        question=row["question"],
        answer=row["answer"] or "",
        images=images,
        history=tuple((turn["question"], turn["answer"]) for turn in row["history"]),
    )
