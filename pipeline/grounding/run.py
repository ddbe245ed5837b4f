"""`medalign student ground`: how much of a student's attention lies where the annotated region is, layer by layer.

Writes `attention.npy` (the maps), `grounding.parquet` (one row per question and layer) and `grounding.json` (means with
intervals; written last, so a folder that has it is whole).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from ...errors import InputError
from ...progress import Progress
from ...student.grounding import question_attention
from ...student.loading import Student
from ..answer_log import check_free, open_run, write_table, write_whole
from ..describing import describe_questions, describe_student
from ..hashing import require_files
from ..requests import SplitRequest
from ..samples import manifest_samples
from .findings import GroundingFindings, compare_layers, summarise_layers
from .maps import MAPS_FILE, fill_maps
from .measures import measure_layers
from .questions import GroundedQuestions, coverage_of, grounded_questions

GROUNDING_FILE = "grounding.parquet"
FINDINGS_FILE = "grounding.json"
FORMAT = "medalign-grounding"
VERSION = 1
WHAT = "a grounding run"


@dataclass(frozen=True, kw_only=True, slots=True)
class GroundingRequest(SplitRequest):
    """What `medalign student ground` was asked."""

    regions: tuple[str, ...] = ()
    """Names of the regions to measure on every image that has them; none: those that each question names."""
    against: Path | None = None
    """Folder of an earlier run over the same questions, to compare with."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GroundingReport:
    """What was measured and where it is."""

    out: Path
    questions: int
    left_out: dict[str, int]
    aligned_layers: tuple[int, ...]
    """Zero-based layers that the adapter's alignment acts on."""
    against: Path | None
    findings: GroundingFindings

    def summary(self) -> dict[str, Any]:
        return {
            "grounding": str(self.out / GROUNDING_FILE),
            "questions": self.questions,
            "left_out": self.left_out,
            "aligned_layers": list(self.aligned_layers),
            "against": None if self.against is None else str(self.against),
            **self.findings.values(),
        }


def run_grounding(request: GroundingRequest, out: Path, progress: Progress) -> GroundingReport:
    """Measure a student on one split of a manifest.

    Raises:
        InputError: no such split, nothing in it can be measured, missing images or masks, an unreadable student, `out`
            is in use, or `against` measured something else.
        SettingsError: no such device or template.
    """
    check_free(out, resume=request.resume, what=WHAT)  # before the student, which takes long to load
    questions = grounded_questions(request.read_split(), request.regions, request.limit)
    earlier = None if request.against is None else read_grounding(request.against)
    student = request.load_student()
    table = _measure(student, questions, request, out, progress)
    findings = summarise_layers(table) if earlier is None else compare_layers(earlier, table)
    return _finish(request, out, questions, student, findings)


def read_grounding(folder: Path) -> pl.DataFrame:
    """The table of a finished run.

    Raises:
        InputError: the folder holds none.
    """
    if not (folder / FINDINGS_FILE).is_file():
        raise InputError(
            f"{folder} holds no finished grounding run; `medalign student ground --out {folder}` makes one"
        )
    table = pl.read_parquet(folder / GROUNDING_FILE, glob=False)
    if "image_hashes" not in table.columns:  # written before questions had several images
        table = table.with_columns(pl.concat_list("image_hash").alias("image_hashes"))
    return table


def _measure(
    student: Student, questions: GroundedQuestions, request: GroundingRequest, out: Path, progress: Progress
) -> pl.DataFrame:
    samples = manifest_samples(questions.manifest)
    require_files([image.path for sample in samples for image in sample.images])
    coverage = coverage_of(questions, student.images.grid)
    run = _describe(student, request.adapter_folder, questions)
    open_run(out, run, resume=request.resume, what=WHAT)
    layers = len(student.model.llava.get_decoder().layers)
    maps = fill_maps(
        out / MAPS_FILE,
        samples,
        (layers, student.images.grid.patches),
        partial(question_attention, student),
        batch_size=request.batch_size,
        progress=progress,
    )
    table = measure_layers(maps, coverage, questions.names, questions.manifest)
    header = {"format": FORMAT, "version": VERSION, "run": run}
    write_table(out / GROUNDING_FILE, table, header)
    return table


def _describe(student: Student, adapter: Path | None, questions: GroundedQuestions) -> dict[str, Any]:
    """What decides the maps and measures: two runs with the same description give the same."""
    regions: Sequence[Sequence[str]] = [[repr(region) for region in regions] for regions in questions.regions]
    asked = questions.manifest.frame.with_columns(pl.Series("about", regions, dtype=pl.List(pl.String)))
    columns = ["question_id", "question", "answer", "options", "image_hash", "history", "about"]
    return describe_student(student, adapter) | describe_questions(asked, columns)


def _finish(
    request: GroundingRequest, out: Path, questions: GroundedQuestions, student: Student, findings: GroundingFindings
) -> GroundingReport:
    report = GroundingReport(
        out=out,
        questions=len(questions.regions),
        left_out=questions.left_out,
        aligned_layers=() if student.adapter is None else student.adapter.layers,
        against=request.against,
        findings=findings,
    )
    write_whole(out / FINDINGS_FILE, json.dumps(report.summary(), indent=2) + "\n")
    return report
