"""Compute missing answers, score all cells, and write the tables.

OUT/comparison.json   what determines the answers
OUT/cells/...         one evaluation per cell (described in docs/metrics.md)
OUT/cells.parquet     one row per cell: what was run, its cost, its values
OUT/findings.parquet  one row per system, data set and metric: value, interval, difference, p
OUT/tables.md, .tex   the tables
OUT/tables.json       the same as data
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import polars as pl

from ....errors import InputError
from ....plain_text import as_typed
from ....progress import Progress
from ....student.file_errors import is_file
from ....student.metrics.answer_words import is_unspaced
from ....student.metrics.reports.report_metric import ReportMetric
from ...data.manifest import Manifest
from ...data.manifest_images import IMAGE_HASHES, question_groups
from ...row_output import Rows
from ...runs.answer_log import RUN_FILE, write_table, write_whole
from ...runs.run_record import read_run
from ...runs.stop_reasons import as_warnings, count_finishes, finish_warnings, reading_warnings, shown_finishes
from ..batches.array_tasks import PartReport
from ..batches.conditions import condition_warnings
from ..batches.dispatch import ALONE, WorkRequest, run_lock
from ..batches.process_group import joined_group
from ..scoring import read_conditions, score_answers, write_scores
from ..statistics import few_images_warnings
from .analysis import Finding, ScoredCell, Table, analyze, costs
from .cell_answers import CellAnswers
from .cells import Cell, Plan, plan_comparison
from .claim import COMPARISON_FILE, check_saved, claim
from .comparison_tables import TABLES_FILE, write_comparison_tables
from .render import as_latex, as_markdown
from .result_tables import answer_grid, cell_grid, cell_values, difference_grid, report_grids
from .saved_cells import check_cell, check_trainings, is_finished, saved_answers
from .spec import ComparisonSpec
from .table_entries import Grid

CELLS_FILE = "cells.parquet"
FINDINGS_FILE = "findings.parquet"
MARKDOWN_FILE = "tables.md"
LATEX_FILE = "tables.tex"
_TABLES = (MARKDOWN_FILE, LATEX_FILE, TABLES_FILE, CELLS_FILE, FINDINGS_FILE)


@dataclass(frozen=True, kw_only=True)
class ComparisonReport:
    """A finished comparison."""

    out: Path
    answered: int
    """Number of cells that this run worked on; the others were finished."""
    cells: Mapping[Cell, ScoredCell]
    findings: Sequence[Finding]
    grids: Sequence[Grid]
    """Tables for the terminal: answers in the first scoring, then reports."""
    warnings: Sequence[str]
    """Warnings about the results."""

    def summary(self) -> dict[str, Any]:
        return {
            "out": str(self.out),
            "cells": [_cell_row(cell, scored) for cell, scored in self.cells.items()],
            "answered": self.answered,
            "findings": [_finding_row(finding) for finding in self.findings],
            "warnings": list(self.warnings),
            "tables": [str(self.out / name) for name in _TABLES],
        }

    def rows(self) -> Rows:
        """One row per system, data set and metric, as in findings.parquet."""
        return Rows.of([_finding_row(finding) for finding in self.findings])


def run_comparison(
    spec: ComparisonSpec,
    out: Path,
    metrics: Sequence[ReportMetric],
    progress: Progress,
    *,
    device: str,
    resume: bool = False,
    work: WorkRequest = ALONE,
) -> ComparisonReport | PartReport:
    """Compute all missing answers, student by student, then score and compare.

    Under torchrun every process calls this; all except the first return a `PartReport`, as does a task.

    Raises:
        InputError: Something in the specification is missing, `out` is in use or contains another comparison, or parts
            are missing with `finish`.
        SettingsError: The specification is invalid, or options are incompatible.
    """
    with joined_group() as group:
        work.check(group)
        plan = plan_comparison(spec)
        check_trainings(spec, plan.identity)
        if work.finish and not is_file(out / COMPARISON_FILE):
            raise InputError(
                f"{out} has no comparison: run this command with --task I/N first, for each I from 0 to N - 1"
            )
        threads = work.threads_on(device)
        identity = dict(plan.identity) if threads is None else {**plan.identity, "threads": threads}
        if group.is_first:
            adopt = () if work.threads is not None and not work.finish else ("threads",)
            identity = claim(out, identity, resume=resume or work.may_exist, adopt=adopt)
        identity = group.from_first(identity)
        with run_lock(out, work.part, group):
            answering = CellAnswers(plan, identity, out, device, work, group, progress)
            answered = answering.do()
            if not group.is_first:
                return PartReport(out=out, task=None, batches=0, done=0)
            if work.part is not None:
                return answering.report_part(work.part)
            cells = answering.score(metrics)
            return _report(plan, _scored_again(plan, cells, out, metrics, progress, identity), out, answered)


def reanalyze_comparison(
    spec: ComparisonSpec, out: Path, metrics: Sequence[ReportMetric], progress: Progress
) -> ComparisonReport:
    """Score the saved answers of a finished comparison again and write new tables, without students.

    Raises:
        InputError: There is no comparison, one of its cells is unfinished, or the specification needs other answers.
    """
    plan = plan_comparison(spec, with_students=False)
    recorded = check_saved(out, plan.identity)
    check_trainings(spec, recorded)
    missing = [cell for cell in plan.cells if not is_finished(out, cell)]
    if missing:
        raise InputError(
            f"{out}: {len(missing)} of {len(plan.cells)} cells are not finished, first: {missing[0]}; "
            f"compute them with `medalign student compare SPEC.yaml --resume --out {as_typed(out)}`"
        )
    for cell in plan.cells:
        run = check_cell(plan, cell, out, recorded)
        answers = saved_answers(plan, cell, out, recorded)
        write_scores(out / cell.folder, run, plan.questions[cell.data].frame, answers, metrics)
    return _report(plan, _scored_again(plan, {}, out, metrics, progress, recorded), out, 0)


def _scored_again(
    plan: Plan,
    known: Mapping[Cell, ScoredCell],
    out: Path,
    metrics: Sequence[ReportMetric],
    progress: Progress,
    identity: Mapping[str, Any],
) -> dict[Cell, ScoredCell]:
    """Score the cells that are not in `known`; return all cells in the plan's order."""
    missing = [cell for cell in plan.cells if cell not in known]
    progress.start("scoring saved answers", len(missing))
    found = dict(known)
    for cell in missing:
        answers = saved_answers(plan, cell, out, identity)
        predictions = [answer.prediction for answer in answers]
        found[cell] = ScoredCell(
            results=score_answers(plan.questions[cell.data].frame, predictions, metrics).results,
            answers=len(answers),
            seconds=sum(answer.seconds for answer in answers),
            forwards=sum(answer.forwards for answer in answers),
            finishes=count_finishes(answers),
        )
        progress.advance()
    return {cell: found[cell] for cell in plan.cells}


def _report(plan: Plan, cells: Mapping[Cell, ScoredCell], out: Path, answered: int) -> ComparisonReport:
    """Analyze, write every file, and build the report."""
    spec = plan.spec
    findings = analyze(spec, cells, {name: _images(asked) for name, asked in plan.questions.items()})
    _write_rows(out / CELLS_FILE, [_cell_row(*item) for item in cells.items()])
    _write_rows(out / FINDINGS_FILE, [_finding_row(finding) for finding in findings])
    prices = costs(cells)
    shown: list[Grid] = []
    rest: list[Grid] = []
    for student in spec.students:
        order = sorted(get_args(Table), key=lambda table: table != spec.reading)
        answers = {table: answer_grid(spec, student.name, table, findings, prices) for table in order[:2]}
        shown += [grid for table, grid in answers.items() if grid is not None and table == spec.reading]
        rest += [grid for table, grid in answers.items() if grid is not None and table != spec.reading]
        shown += report_grids(spec, student.name, findings, prices)
        differences = (difference_grid(spec, student.name, table, findings) for table in order)
        rest += [grid for grid in differences if grid is not None]
    warnings = _warnings(plan, cells, out)
    grids = [*shown, *rest, cell_grid(cells)]
    write_comparison_tables(out, plan, _preamble(plan), warnings, grids)
    preamble = [*_preamble(plan), *as_warnings(warnings)]
    write_whole(out / MARKDOWN_FILE, as_markdown(spec.title, preamble, grids))
    write_whole(out / LATEX_FILE, as_latex([*shown, *rest]))
    return ComparisonReport(out=out, answered=answered, cells=cells, findings=findings, grids=shown, warnings=warnings)


def _write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    write_table(path, pl.DataFrame(rows, infer_schema_length=None))


def _images(questions: Manifest) -> list[str]:
    return question_groups(questions.frame.select(IMAGE_HASHES).to_series(), questions.frame["question_id"])


def _preamble(plan: Plan) -> list[str]:
    """Text about what all cells have in common."""
    spec = plan.spec
    budgets = ", ".join(f"{data.name} {data.max_new_tokens or spec.max_new_tokens}" for data in spec.data)
    asked = ", ".join(
        f"{data.name} {plan.questions[data.name].frame.height} questions about "
        f"{plan.questions[data.name].images().height} images"
        for data in spec.data
    )
    return [
        f"{len(plan.cells)} cells. Questions: {asked}. Maximum answer length in tokens, for all cells: {budgets}. "
        f"Batch size {spec.batch_size}, with the same prompt for all cells of a student. "
        f"Seeds: {', '.join(map(str, spec.seeds))}."
    ]


def _warnings(plan: Plan, cells: Mapping[Cell, ScoredCell], out: Path) -> list[str]:
    """Warnings about empty or cut-off answers, few images, unspaced languages, and how students ran."""
    found = [
        f"{cell}: {line}"
        for cell, scored in cells.items()
        for line in finish_warnings(scored.finishes, plan.decoding(cell).max_new_tokens)
    ]
    for name, asked in plan.questions.items():
        found += [f"{name}: {line}" for line in few_images_warnings(len(set(_images(asked))))]
        answers = asked.frame["answer"]
        unspaced = sum(is_unspaced(answer or "") for answer in answers)
        found += [f"{name}: {line}" for line in reading_warnings(unspaced, len(answers))]
    ran = (
        f"{cell.student}, {cell.adapter}: {line}"
        for cell in cells
        for line in condition_warnings(read_conditions(out / cell.folder), read_run(out / cell.folder / RUN_FILE))
    )
    return [*found, *dict.fromkeys(ran)]


def _cell_row(cell: Cell, scored: ScoredCell) -> dict[str, Any]:
    cost = {
        "answers": scored.answers,
        "seconds_per_answer": scored.seconds / scored.answers,
        "forwards_per_answer": scored.forwards / scored.answers,
    }
    return asdict(cell) | cost | shown_finishes(scored.finishes) | cell_values(scored)


def _finding_row(finding: Finding) -> dict[str, Any]:
    values = asdict(finding)
    system: dict[str, Any] = values.pop("system")
    return system | values
