"""What a run of `student align` changed: answers to questions about held-out images, and linear probes of tokens.

The student before the run and the trained one are loaded one after the other, from their folders. Labels of a manifest
are used here alone, after the training; a manifest without any has nothing to measure.
"""

import gc
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl
import torch

from ...errors import MedalignError
from ...plain_text import quoted_error
from ...progress import Labeled, Progress
from ...student.decoding import choose_decoding
from ...student.decoding.generation import generate_answers
from ...student.inspection.token_capture import StageTokens, capture_image_side
from ...student.loading.student_loading import Student, load_student
from ...student.metrics.result import MetricResult, mean_result
from ...student.metrics.vqa import score_question
from ...teacher_cache.geometry.patch_grid import PatchGrid
from ..align.measured_changes import AnswersMoved, Kind, MeasuredImages, Measurement, MeasureRequest, ProbeMoved
from ..data.manifest import Manifest
from ..data.manifest_images import MORE_IMAGES_COLUMN
from ..data.samples import manifest_samples
from ..evaluation.scoring import answered_questions
from ..evaluation.statistics import bootstrap_difference
from .cell_labels import CellLabels, label_cells
from .inspected_images import InspectedImages, inspected_images
from .probes.probe_tasks import ProbeFamily, probe_families

BATCH_SIZE: Final = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class _Sample:
    """What is read of one kind of images."""

    probed: InspectedImages | None
    cells: CellLabels | None
    families: tuple[ProbeFamily, ...]
    asked: Manifest | None
    """One question about each of some held-out images."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Read:
    """What one student gave for one kind of images."""

    stages: Sequence[StageTokens]
    answers: Sequence[str]


def measure_changes(request: MeasureRequest, progress: Progress) -> Measurement:
    """Measure what a run changed. Of a failure only the reason is returned, because the run is complete."""
    begin = time.perf_counter()
    try:
        answers, probes = _measure(request, progress)
    except (MedalignError, torch.OutOfMemoryError) as error:
        reason = str(error) if isinstance(error, MedalignError) else f"out of memory: {quoted_error(error)}"
        progress.note(f"answers and probes could not be measured: {reason}")
        return Measurement(failure=reason, seconds=time.perf_counter() - begin)
    return Measurement(answers=answers, probes=probes, seconds=time.perf_counter() - begin)


def _measure(request: MeasureRequest, progress: Progress) -> tuple[tuple[AnswersMoved, ...], tuple[ProbeMoved, ...]]:
    if not request.limit:
        return (), ()
    from .probes.probe_changes import probe_changes  # scikit-learn is slow to import

    read: dict[tuple[str, Kind], _Read] = {}
    samples: dict[Kind, _Sample] = {}
    grid: PatchGrid | None = None
    for name, folder in (("before", request.before), ("after", request.after)):
        student = load_student(folder, device=request.device, dtype=request.dtype, template=request.template)
        grid, labeled = student.images.grid, Labeled(progress, name)
        for kind, images in request.images.items():
            if kind not in samples:
                samples[kind] = _sample(images, request, grid, progress)
            read[name, kind] = _read(student, samples[kind], request, labeled)
        del student  # before the next one is loaded
        gc.collect()
    answers, probes = [], []
    for kind, sample in samples.items():
        before, after = read["before", kind], read["after", kind]
        if sample.asked is not None:
            answers.append(compare_answers(kind, sample.asked, before.answers, after.answers, seed=request.seed))
        for family in sample.families:
            assert sample.cells is not None
            assert grid is not None
            stages = (before.stages, after.stages)
            probes += probe_changes(
                kind, family, stages, sample.cells.chosen, grid, seed=request.seed, progress=progress
            )
    return tuple(answers), tuple(probes)


def _sample(images: MeasuredImages, request: MeasureRequest, grid: PatchGrid, progress: Progress) -> _Sample:
    """Draw images to probe, and held-out ones with a question to ask."""
    probed = _drawn(images.manifest, images.used, request)
    held_out = _drawn(images.manifest, images.held_out, request)
    asked = None if held_out is None or not len(held_out.asked.questions) else held_out.asked
    if probed is None:
        return _Sample(probed=None, cells=None, families=(), asked=asked)
    cells = label_cells(probed, grid, seed=request.seed, progress=progress)
    families = probe_families(probed, cells)
    return _Sample(probed=probed if families else None, cells=cells, families=families, asked=asked)


def _drawn(manifest: Manifest, hashes: Collection[str], request: MeasureRequest) -> InspectedImages | None:
    """A sample of these images; None if none of them is the single image of a row."""
    rows = manifest.frame.filter(
        pl.col("image_hash").is_in(list(hashes)) & (pl.col(MORE_IMAGES_COLUMN).list.len() == 0)
    )
    if rows.is_empty():
        return None
    part = Manifest(rows, manifest.root, manifest.source)
    return inspected_images(part, limit=request.limit, shown=0, seed=request.seed)


def _read(student: Student, sample: _Sample, request: MeasureRequest, progress: Progress) -> _Read:
    stages: Sequence[StageTokens] = ()
    answers: list[str] = []
    if sample.probed is not None and sample.cells is not None:
        chosen = torch.from_numpy(sample.cells.chosen)
        stages = capture_image_side(student, sample.probed.samples, chosen, batch_size=BATCH_SIZE, progress=progress)
    if sample.asked is not None:
        decoding = choose_decoding("greedy", {}, max_new_tokens=request.max_new_tokens)
        questions = manifest_samples(sample.asked)
        found = generate_answers(student, questions, decoding, batch_size=BATCH_SIZE, progress=progress)
        answers = [answer.text for answer in found]
    return _Read(stages=stages, answers=answers)


def compare_answers(
    kind: str, asked: Manifest, before: Sequence[str], after: Sequence[str], *, seed: int
) -> AnswersMoved:
    """How many answers changed, and the mean scores; the interval is over images."""
    frame = asked.questions
    old, new = _scores(frame, before), _scores(frame, after)
    change = bootstrap_difference(old, new, frame["image_hash"].to_list(), seed=seed)
    return AnswersMoved(
        images=kind,
        questions=frame.height,
        changed=sum(one != two for one, two in zip(before, after, strict=True)) / frame.height,
        scored=int(old.scored.sum()),
        score_before=old.value,
        score_after=new.value,
        low=None if change is None else _finite(change.low),
        high=None if change is None else _finite(change.high),
    )


def _scores(questions: pl.DataFrame, answers: Sequence[str]) -> MetricResult:
    strict = [score_question(one).strict for one in answered_questions(questions, answers)]
    return mean_result("strict", [None if one is None else one.value for one in strict])


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
