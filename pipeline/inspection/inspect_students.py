"""`medalign student inspect`: image tokens, probes, attention and answers of a student before and after training.

Writes Parquet tables, figures, `inspection.json` (numbers and the verdict) and `report.html`.
"""

import gc
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import torch

from ...errors import SettingsError
from ...progress import Labeled, Progress
from ...student.folders.model_folder import new_folder
from ...student.inspection.token_capture import capture_tokens
from ..data import saved_tables
from ..data.image_hashing import require_files
from ..data.manifest import Manifest
from ..evaluation.statistics import few_images_warnings
from ..reports.figures.figure_files import FOLDER, write_figure_data
from ..reports.page import REPORT_FILE, write_page
from ..reports.report_folder import check_report_folder
from ..runs.answer_log import RUN_FILE, write_whole
from ..runs.provenance import describe_questions, describe_student, template_warnings
from .arms import Arm, find_arms
from .cell_labels import label_cells
from .inspect_request import InspectRequest
from .inspected_images import InspectedImages, describe_sample, inspected_images
from .inspection_page import inspection_page, no_verdict
from .questions.asked_questions import asked_questions
from .questions.question_capture import ArmQuestions, capture_questions
from .questions.questions_report import QuestionsReport, report_questions
from .teacher_stage import TeacherSide, open_fitting_store, read_teacher_side
from .token_findings import TokenFindings
from .token_results import token_tables, token_values

INSPECTION_FILE = "inspection.json"
FORMAT = "medalign-inspection"
VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Folders:
    """Where the results of an inspection are."""

    out: Path
    """Where they will be."""
    written: Path
    """Where they are written; it is renamed to `out` when all are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InspectionReport:
    """The results of an inspection and its folder."""

    out: Path
    arms: tuple[str, ...]
    images: int
    verdicts: Mapping[str, Mapping[str, str]]
    """Arm -> what was probed -> the verdict in one sentence."""
    findings: tuple[str, ...]
    """Other findings, a sentence each."""
    warnings: tuple[str, ...]
    uncertain: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Arm -> what was probed where fewer than half of the resamples of the images have the verdict's result."""

    def summary(self) -> dict[str, Any]:
        """The values for the table and for --json."""
        return {
            "report": str(self.out / REPORT_FILE),
            "inspection": str(self.out / INSPECTION_FILE),
            "images": self.images,
            "students": list(self.arms),
            "verdicts": {arm: dict(verdicts) for arm, verdicts in self.verdicts.items()},
            "uncertain_verdicts": {arm: list(families) for arm, families in self.uncertain.items()},
            "findings": list(self.findings),
            "warnings": list(self.warnings),
        }


def run_inspection(request: InspectRequest, out: Path, progress: Progress) -> InspectionReport:
    """Inspect a base and its adapters on a sample of images, one student in memory at a time.

    Raises:
        InputError: The split has no image, files are missing, a student or mask cannot be read, or `out` is in use.
        SettingsError: The device or template does not exist, or there is nothing to inspect with these options.
        StoreError: The store does not fit the student or lacks images.
    """
    check_report_folder(out)  # before any slow step
    arms = find_arms(request)
    split = Manifest.read(request.manifest, request.root).split(request.split)
    inspected = inspected_images(split, limit=request.limit, shown=request.shown, seed=request.seed)
    require_files([image.path for image in inspected.files])
    store = open_fitting_store(request, inspected, arms[0].facts.images.grid)
    if request.hash_key is not None and store is None:
        raise SettingsError("--hash-key is the key of a store: pass --store with it")
    run = _describe(request, arms, inspected)
    with new_folder(out) as folder:  # an inspection is never resumed, so a part of one is not left behind
        write_whole(folder / RUN_FILE, json.dumps(run, indent=2) + "\n")
        return _inspect(request, arms, inspected, store, run, Folders(out=out, written=folder), progress)


def _inspect(
    request: InspectRequest,
    arms: tuple[Arm, ...],
    inspected: InspectedImages,
    store: Any,
    run: dict[str, Any],
    folders: Folders,
    progress: Progress,
) -> InspectionReport:
    images = arms[0].facts.images
    cells = label_cells(inspected, images.grid, seed=request.seed, progress=progress)
    chosen = torch.from_numpy(cells.chosen)
    teacher = None
    if store is not None:
        teacher = read_teacher_side(store, inspected, chosen, batch_size=request.batch_size, progress=progress)
    tokens = TokenFindings.begin(inspected, cells, arms, grid=images.grid, seed=request.seed)
    parts: dict[str, ArmQuestions] = {}
    for arm in arms:
        parts[arm.name] = _read_arm(request, arm, inspected, chosen, teacher, tokens, progress)
    questions = report_questions(
        asked_questions(inspected.asked, images),
        inspected.shown.frame["question_id"].to_list(),
        parts,
        None if teacher is None else teacher.maps,
        tokens.aligned,
        progress,
    )
    return _write(request, arms, inspected, tokens, questions, run, folders, progress)


def _read_arm(
    request: InspectRequest,
    arm: Arm,
    inspected: InspectedImages,
    chosen: torch.Tensor,
    teacher: TeacherSide | None,
    tokens: TokenFindings,
    progress: Progress,
) -> ArmQuestions:
    """Load one student, read its tokens, attention and answers, and measure its tokens without it in memory."""
    student, labeled = arm.recipe.load(), Labeled(progress, arm.name)
    stages = capture_tokens(
        student,
        inspected.samples,
        chosen,
        None if teacher is None else teacher.store,
        batch_size=request.batch_size,
        progress=labeled,
    )
    questions = capture_questions(
        student,
        inspected.asked,
        batch_size=request.batch_size,
        max_new_tokens=request.max_new_tokens,
        progress=labeled,
    )
    del student
    gc.collect()
    tokens.add(arm.name, stages, None if teacher is None else teacher.stage, progress)
    return questions


def _write(
    request: InspectRequest,
    arms: tuple[Arm, ...],
    inspected: InspectedImages,
    tokens: TokenFindings,
    questions: QuestionsReport,
    run: dict[str, Any],
    folders: Folders,
    progress: Progress,
) -> InspectionReport:
    folder = folders.written
    warnings = [*template_warnings(arms[0].facts), *few_images_warnings(len(inspected.images))]
    page, findings = inspection_page(request, arms, inspected, tokens, questions, run, warnings)
    tables: dict[str, pl.DataFrame] = {**token_tables(tokens, inspected), **questions.tables}
    for name, table in tables.items():
        header = {"format": FORMAT, "version": VERSION, "run": run}
        saved_tables.write(folder / f"{name}.parquet", table, header)
    for card in questions.cards:
        write_figure_data(folder / FOLDER, card)
    report = InspectionReport(
        out=folders.out,
        arms=tuple(arm.name for arm in arms),
        images=len(inspected.images),
        verdicts={
            arm.name: {family.name: tokens.verdicts[arm.name, family.name].sentence for family in tokens.families}
            for arm in arms
        },
        findings=findings if tokens.families else (no_verdict(tokens), *findings),
        warnings=tuple(warnings),
        uncertain=_uncertain(arms, tokens),
    )
    values = {
        "format": FORMAT,
        "version": VERSION,
        "run": run,
        "sample": describe_sample(inspected),
        **report.summary(),
        **token_values(tokens),
        **questions.values,
    }
    write_page(folder / REPORT_FILE, page, progress)
    write_whole(folder / INSPECTION_FILE, json.dumps(_plain(values), indent=2, allow_nan=False) + "\n")
    return report


def _uncertain(arms: Sequence[Arm], tokens: TokenFindings) -> dict[str, tuple[str, ...]]:
    names = [family.name for family in tokens.families]
    return {arm.name: tuple(name for name in names if tokens.verdicts[arm.name, name].uncertain) for arm in arms}


def _describe(request: InspectRequest, arms: tuple[Arm, ...], inspected: InspectedImages) -> dict[str, Any]:
    """What determines the results."""
    columns = ["question_id", "question", "answer", "image_hash"]
    return {
        "students": {arm.name: describe_student(arm.facts, arm.adapter) for arm in arms},
        **describe_questions(inspected.questions.frame, columns),
        "images": len(inspected.images),
        "seed": request.seed,
        "batch_size": request.batch_size,
        "max_new_tokens": request.max_new_tokens,
    }


def _plain(value: Any) -> Any:
    """JSON has no NaN: null instead."""
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and value != value:
        return None
    return value
