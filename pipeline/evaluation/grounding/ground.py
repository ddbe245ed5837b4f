"""`medalign student ground`: measure how much of a student's attention is on annotated regions, layer by layer.

Writes `attention.npy` (the maps), `grounding.parquet` (one row per question and layer) and `grounding.json` (means with
intervals; written last, so a folder that has it is complete).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ....errors import InputError, SettingsError
from ....plain_text import as_typed
from ....progress import Progress
from ....student.file_errors import reading
from ....student.folders.student_facts import StudentFacts
from ....student.inputs.collation import Pixels, Sample
from ....student.inspection.question_attention import question_attention
from ....student.loading.student_loading import Student
from ....suggestions import to_pass
from ....teacher_cache.geometry.patch_grid import PatchGrid
from ...data import saved_tables
from ...data.annotations.region_questions import GroundedQuestions, coverage_of, grounded_questions
from ...data.image_hashing import require_files
from ...data.samples import manifest_samples
from ...runs.answer_log import check_begun, check_free, open_run, undone_claim, write_table, write_whole, writer_name
from ...runs.provenance import describe_questions, describe_student
from ...runs.run_inputs import write_inputs
from ...runs.stop_reasons import as_warnings
from ..batches.array_tasks import PartReport, check_whole, part_report
from ..batches.batch_work import BatchOrder, Cell
from ..batches.conditions import check_conditions, condition_warnings, joined_conditions
from ..batches.dispatch import WorkRequest, do_missing, jobs_of, run_lock
from ..batches.process_group import Group, joined_group
from ..requests import SplitRequest
from ..statistics import few_images_warnings
from .attention_maps import MapParts
from .layer_statistics import GroundingFindings, compare_layers, summarize_layers
from .measures import check_table, measure_layers

GROUNDING_FILE = "grounding.parquet"
FINDINGS_FILE = "grounding.json"
FORMAT = "medalign-grounding"
VERSION = 1
WHAT = "a grounding run"


@dataclass(frozen=True, kw_only=True, slots=True)
class GroundingRequest(SplitRequest):
    """The options of `medalign student ground`."""

    regions: tuple[str, ...] = ()
    """Names of the regions to measure on every image that has them; empty: those that each question mentions."""
    against: Path | None = None
    """Folder of an earlier run on the same questions, for comparison."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GroundingReport:
    """The results of a run and its folder."""

    out: Path
    questions: int
    left_out: dict[str, int]
    aligned_layers: tuple[int, ...]
    """Zero-based aligned layers of the adapter."""
    grid: PatchGrid
    """Grid of the image tokens; attention.npy has the patches in its order, row by row."""
    against: Path | None
    findings: GroundingFindings
    warnings: tuple[str, ...] = ()
    """Warnings about the results, which the terminal and the page show."""

    def summary(self) -> dict[str, Any]:
        return {
            "grounding": str(self.out / GROUNDING_FILE),
            "questions": self.questions,
            "left_out": self.left_out,
            "aligned_layers": list(self.aligned_layers),
            "grid": str(self.grid),
            "against": None if self.against is None else str(self.against),
            **self.findings.values(),
            "warnings": list(self.warnings),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class AskAttention:
    """Read the attention of a batch of questions; nothing is generated."""

    @property
    def max_new_tokens(self) -> int:
        return 0

    def __call__(self, student: Student, samples: Sequence[Sample], pixels: Sequence[Pixels]) -> list[np.ndarray]:
        found = question_attention(student, samples, pixels).numpy()
        if not np.isfinite(found).all():
            raise InputError(
                f"the student's attention on question {samples[0].question_id!r} or one of the {len(samples) - 1} "
                "after "
                "it is not finite: its weights are not finite, or too large for --dtype"
            )
        return list(found)


def run_grounding(request: GroundingRequest, out: Path, progress: Progress) -> GroundingReport | PartReport:
    """Measure a student on one split of a manifest, or do one task of it.

    Under torchrun every process calls this; all except the first return a `PartReport`.

    Raises:
        InputError: The split does not exist or has nothing to measure, images or masks are missing, the student cannot
            be read, `out` is in use, `against` measured something else, or parts are missing with `finish`.
        SettingsError: The device or template does not exist, or options are incompatible.
    """
    work = request.work
    if request.resume and work.finish:
        raise SettingsError("--resume and --finish are incompatible: pass only one of them")
    if work.part is None and work.finish:
        check_begun(out, what=WHAT)
    check_free(out, resume=request.resume or work.may_exist, what=WHAT)  # before any slow step
    with joined_group() as group:
        work.check(group)
        recipe = request.recipe()
        questions = grounded_questions(request.read_split(), request.regions, request.limit)
        earlier = None if request.against is None else read_grounding(request.against)
        samples = manifest_samples(questions.manifest)
        require_files([image.path for sample in samples for image in sample.images])
        facts = recipe.facts()
        coverage = coverage_of(questions, facts.images.grid) if _measures(work, group) else None  # early
        run = _describe(facts, questions, request.batch_size, work.threads_on(recipe.device))
        claimed = False
        if group.is_first:
            adopt = () if work.threads is not None and not work.finish else ("threads",)
            run, claimed = open_run(out, run, resume=request.resume or work.may_exist, what=WHAT, adopt=adopt)
        run = group.from_first(run)
        order = BatchOrder(
            students=(recipe,),
            cells=(Cell(student=0, questions=WHAT, ask=AskAttention()),),
            samples={WHAT: tuple(samples)},
            batch_size=request.batch_size,
            threads=run.get("threads"),
        )
        with undone_claim(out, is_new=claimed and work.part is None), run_lock(out, work.part, group):
            parts = _fill(order, out, (facts.layers, facts.images.grid.patches), work, group, progress)
            if not group.is_first:
                return PartReport(out=out, task=None, batches=0, done=0)
            if work.part is not None:
                return part_report(out, work.part, len(parts.missing), parts.batches, progress)
            assert coverage is not None
            check_whole(out, parts.missing, parts.batches, parts.tasks)
            conditions = joined_conditions(parts.conditions.values())
            table = measure_layers(parts.join(), coverage, questions.names, questions.manifest)
            write_table(out / GROUNDING_FILE, table, {"format": FORMAT, "version": VERSION, "run": run})
            findings = summarize_layers(table) if earlier is None else compare_layers(earlier, table)
            warnings = [*condition_warnings(conditions, run), *few_images_warnings(findings.images)]
            for line in as_warnings(warnings):
                progress.note(line)
            report = _finish(request, out, questions, facts, findings, warnings)
            parts.remove()
            return report


def _measures(work: WorkRequest, group: Group) -> bool:
    """Whether this process reads the masks: if it measures, and in the first task, to find errors early."""
    return group.is_first and (work.part is None or work.part.number == 0)


def _fill(
    order: BatchOrder, out: Path, shape: tuple[int, int], work: WorkRequest, group: Group, progress: Progress
) -> MapParts:
    """Compute the missing maps of this run's part; return all maps so far."""
    questions = len(order.samples[WHAT])
    writer = writer_name(work.task, group.rank)
    parts = MapParts(out, questions, order.batch_size, shape, writer)
    check_conditions(parts.conditions, answering=not work.finish)
    if work.finish:
        check_whole(out, parts.missing, parts.batches, parts.tasks)
        return parts
    left = set(parts.missing)
    missing = [job for job in jobs_of(order, work.part) if job.batch in left]
    do_missing(order, missing, parts.keep, work, group, progress, label="reading attention")
    group.wait()
    return MapParts(out, questions, order.batch_size, shape, writer)


def read_grounding(folder: Path) -> pl.DataFrame:
    """The table of a finished run.

    Raises:
        InputError: The folder has none.
    """
    if not (folder / FINDINGS_FILE).is_file():
        near = to_pass(folder, lambda other: (other / FINDINGS_FILE).is_file())
        raise InputError(
            f"{folder} has no finished grounding run; create one with `medalign student ground --student STUDENT "
            f"--manifest MANIFEST --out {as_typed(folder)}`" + (f", or {near}" if near else "")
        )
    path = folder / GROUNDING_FILE
    table = saved_tables.read(path, f"copy {folder} again, or run `medalign student ground` with another --out").rows
    with reading(path):
        if "image_hashes" not in table.columns:  # from a version without questions about several images
            table = table.with_columns(pl.concat_list("image_hash").alias("image_hashes"))
    check_table(table, path)
    return table


def _describe(
    student: StudentFacts, questions: GroundedQuestions, batch_size: int, threads: int | None
) -> dict[str, Any]:
    """What determines the maps and measures: two runs with equal descriptions give equal results."""
    regions: Sequence[Sequence[str]] = [[repr(region) for region in regions] for regions in questions.regions]
    asked = questions.manifest.frame.with_columns(pl.Series("about", regions, dtype=pl.List(pl.String)))
    columns = ["question_id", "question", "answer", "options", "image_hash", "history", "about"]
    run = describe_student(student, student.adapter_folder) | describe_questions(asked, columns)
    run["batch_size"] = batch_size
    return run if threads is None else run | {"threads": threads}


def _finish(
    request: GroundingRequest,
    out: Path,
    questions: GroundedQuestions,
    student: StudentFacts,
    findings: GroundingFindings,
    warnings: Sequence[str],
) -> GroundingReport:
    report = GroundingReport(
        out=out,
        questions=len(questions.regions),
        left_out=questions.left_out,
        aligned_layers=() if student.adapter is None else student.adapter.layers,
        grid=student.images.grid,
        against=request.against,
        findings=findings,
        warnings=tuple(warnings),
    )
    write_inputs(out, request.inputs)
    write_whole(out / FINDINGS_FILE, json.dumps(report.summary(), indent=2) + "\n")
    return report
