"""Annotated regions of a manifest as targets of L_att (`alignment.attention_targets`)."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import polars as pl
import torch

from ...errors import InputError
from ...student.inputs.collation import Sample
from ...student.inputs.region_maps import RegionMaps
from ...teacher_cache.geometry.patch_grid import PatchGrid
from ..data.annotations.region_questions import GroundedQuestions, distinct_coverage, regions_named
from ..data.manifest import Manifest
from ..data.regions import Region, read_regions
from .settings import Settings


@dataclass(frozen=True, kw_only=True)
class RegionTargets:
    """The regions of all questions of a run, on the student's grid."""

    maps: RegionMaps
    named: frozenset[str] = field(repr=False)
    """Questions whose text or answer names their regions; the others have all regions of their image."""

    def digest(self, samples: Sequence[Sample]) -> str:
        """SHA-256 of the samples' maps, in order."""
        digest = hashlib.sha256()
        for sample in samples:
            index = self.maps.of_question.get(sample.question_id)
            digest.update(b"none" if index is None else self.maps.maps[index].numpy().tobytes())
        return digest.hexdigest()

    def number(self, samples: Sequence[Sample]) -> int:
        """How many images of the samples have regions."""
        return sum(sample.question_id in self.maps.of_question for sample in samples)

    def coverage(self, samples: Sequence[Sample]) -> str:
        """How many images of the samples have a target, as a phrase."""
        images = sum(len(sample.images) for sample in samples)
        covered = [sample.question_id for sample in samples if sample.question_id in self.maps.of_question]
        named = sum(question in self.named for question in covered)
        return f"{len(covered)} of {images} images ({named} by regions that the question or its answer names)"


def read_region_targets(
    settings: Settings, splits: Sequence[Manifest], samples: Sequence[Sample], grid: PatchGrid
) -> RegionTargets | None:
    """Read the regions of the first image of every question; None if the run does not use them.

    The regions of a question are those that it names, or else its answer, as in `student ground`; if it names none, all
    of its image. An image of unknown size counts as one without regions.

    Raises:
        InputError: No training question has a region, a mask is missing, differs from the manifest or does not fit its
            image, or a question's regions cover nothing.
    """
    if not settings.alignment.uses_regions:
        return None
    wanted = {sample.question_id for sample in samples if sample.images}
    frame = pl.concat([split.frame for split in splits])
    frame = frame.filter(
        pl.col("question_id").is_in(wanted), pl.col("regions").list.len() > 0, pl.col("width").is_not_null()
    )
    if settings.data.train_split not in frame["split"].to_list():
        raise InputError(
            f"alignment.attention_targets is {settings.alignment.attention_targets!r}, but no image of split "
            f"{settings.data.train_split!r} of {settings.data.manifest} has annotated regions. Import the data with "
            "its masks or boxes (docs/manifests.md), or set attention_targets to teacher"
        )
    chosen, named = _choose(frame)
    root = splits[0].root
    rows = GroundedQuestions(manifest=Manifest(frame, root, splits[0].source), regions=chosen, left_out={})
    maps, index = distinct_coverage(rows, grid)
    of_question = dict(zip(frame["question_id"], index, strict=True))
    return RegionTargets(maps=RegionMaps(maps=maps.to(torch.float32), of_question=of_question), named=named)


def _choose(frame: pl.DataFrame) -> tuple[tuple[tuple[Region, ...], ...], frozenset[str]]:
    """The regions of each question, and the questions that name theirs."""
    chosen, named = [], set()
    for name, question, answer, cell in frame.select("question_id", "question", "answer", "regions").iter_rows():
        regions = read_regions(cell)
        about = regions_named(question or "", answer, regions)
        if about:
            named.add(name)
        chosen.append(about or regions)
    return tuple(chosen), frozenset(named)
