"""Evaluation: a student answers the questions of a split, and every answer is scored in both readings.

Writes `predictions.parquet` (one row per question, what was run in its metadata) and `metrics.json` (averages).
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl

from ..errors import InputError
from ..progress import Progress
from ..student.data import Sample
from ..student.decoding import Decoding
from ..student.generation import Answer, generate_answers
from ..student.loading import Student
from ..student.metrics.reports.kinds import ReportMetric
from ..student.metrics.vqa import ReadingSummary
from .answer_log import LOG_FILE, AnswerLog, LoggedAnswer, check_free, open_run
from .decoding import read_decoding
from .describing import describe_questions, describe_student, template_warnings
from .devices import pick_device
from .finishes import as_warnings, count_finishes, finish_warnings, reading_warnings, shown_finishes
from .hashing import require_files
from .manifest import Manifest
from .requests import SplitRequest
from .samples import manifest_samples
from .scoring import (
    METRICS_FILE,
    PREDICTIONS_FILE,
    Scores,
    available_metrics,
    read_answers,
    report_values,
    write_scores,
)

ASKED = ("question_id", "question", "answer", "options", "image_hash", "history")
"""Columns of a manifest that decide answers and scores."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationRequest(SplitRequest):
    """What `medalign student evaluate` was asked."""

    decode: str = "greedy"
    """Name of a decoding method."""
    overrides: tuple[str, ...] = ()
    """Of its settings, as `decode.alpha=0.5`."""
    max_new_tokens: int = 128


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationReport:
    """What an evaluation found and where it is."""

    out: Path
    run: dict[str, Any]
    """Student, questions and decoding: what the numbers are of."""
    scores: Scores
    seconds: float
    """Spent answering, over all interruptions; loading is not in it."""
    forwards: int
    """Forward passes of the language model, all answers together."""
    resumed: int
    """Answers that were there from an interrupted run."""
    finishes: dict[str, int]
    """How many answers stopped in each way (pipeline/finishes.py)."""
    warnings: tuple[str, ...]
    """What a reader of the numbers has to know."""

    def summary(self) -> dict[str, Any]:
        """The report for people: scores overall, without groups."""
        return {
            "predictions": str(self.out / PREDICTIONS_FILE),
            "metrics": str(self.out / METRICS_FILE),
            "questions": self.scores.vqa.questions,
            "resumed": self.resumed,
            "seconds": round(self.seconds, 2),
            "forwards_per_answer": round(self.forwards / self.scores.vqa.questions, 2),
            "decoding": self.run["decoding"]["name"],
            "template": self.run["template"],
            **shown_finishes(self.finishes),
            "unspaced_answers": self.scores.vqa.unspaced,
            "reference": _overall(self.scores.vqa.reference),
            "strict": _overall(self.scores.vqa.strict),
            "reports": {
                name: f"absent: {found['absent']}" if "absent" in found else found["value"]
                for name, found in report_values(self.scores).items()
            },
            "warnings": list(self.warnings),
        }


def run_evaluation(request: EvaluationRequest, out: Path, progress: Progress) -> EvaluationReport:
    """Load a student and evaluate it on one split of a manifest.

    Raises:
        InputError: no such split, no question in it, missing images, an unreadable student, or `out` is in use.
        SettingsError: no such device, template or decoding, or a setting that the decoding does not have.
    """
    decoding = read_decoding(request.decode, request.overrides, max_new_tokens=request.max_new_tokens)
    check_free(out, resume=request.resume)  # before the student, which takes long to load
    manifest = request.read_split()
    student = request.load_student()
    return evaluate_student(
        student,
        manifest,
        decoding,
        out,
        batch_size=request.batch_size,
        limit=request.limit,
        resume=request.resume,
        adapter=request.adapter_folder,
        metrics=available_metrics(pick_device(request.device)),
        progress=progress,
    )


def evaluate_student(
    student: Student,
    manifest: Manifest,
    decoding: Decoding,
    out: Path,
    *,
    batch_size: int,
    limit: int | None = None,
    resume: bool = False,
    adapter: Path | None = None,
    metrics: Sequence[ReportMetric] = (),
    progress: Progress,
) -> EvaluationReport:
    """Evaluate a loaded student on every question of a manifest; `adapter` is where its adapter was loaded from.

    Answers that are reports are scored by `metrics`.

    Raises:
        InputError: no question, missing images, or `out` is in use by something else than this run.
    """
    questions = manifest.questions.head(limit) if limit is not None else manifest.questions
    if questions.is_empty():
        raise InputError(f"the {manifest.source} manifest asks nothing in split {', '.join(manifest.splits)}")
    samples = manifest_samples(Manifest(questions, manifest.root, manifest.source))
    require_files([image.path for sample in samples for image in sample.images])
    run = describe_run(student, adapter, questions, decoding, batch_size)
    open_run(out, run, resume=resume)
    guesses = template_warnings(student)
    if (out / METRICS_FILE).is_file():
        progress.note(f"{out} is finished; its answers are scored again")
        (out / LOG_FILE).unlink(missing_ok=True)  # a kill right after the metrics leaves it
        answers = read_answers(out, run, [sample.question_id for sample in samples])
        return _finish(out, run, questions, answers, len(answers), metrics, guesses, progress)
    log = AnswerLog(out, [sample.question_id for sample in samples], batch_size)
    resumed = len(log.answers)
    if resumed:
        progress.note(f"going on after {resumed} of {len(samples)} answers")
    _answer(student, samples[resumed:], decoding, batch_size, log, progress)
    report = _finish(out, run, questions, log.answers, resumed, metrics, guesses, progress)
    log.remove()
    return report


def describe_run(
    student: Student, adapter: Path | None, questions: pl.DataFrame, decoding: Decoding, batch_size: int
) -> dict[str, Any]:
    """What decides the answers: two runs with the same description give the same."""
    made = {"decoding": asdict(decoding), "batch_size": batch_size}
    return describe_student(student, adapter) | describe_questions(questions, ASKED) | made


def _answer(
    student: Student,
    samples: Sequence[Sample],
    decoding: Decoding,
    batch_size: int,
    log: AnswerLog,
    progress: Progress,
) -> None:
    started = time.perf_counter()

    def keep(batch: Sequence[Sample], answers: list[Answer]) -> None:
        nonlocal started
        finished = time.perf_counter()
        share = (finished - started) / len(batch)
        log.append(
            [
                LoggedAnswer(
                    question_id=sample.question_id,
                    prediction=answer.text,
                    seconds=share,
                    forwards=answer.forwards,
                    finish=answer.finish,
                )
                for sample, answer in zip(batch, answers, strict=True)
            ]
        )
        started = time.perf_counter()

    generate_answers(student, samples, decoding, batch_size=batch_size, progress=progress, on_batch=keep)


def _finish(
    out: Path,
    run: dict[str, Any],
    questions: pl.DataFrame,
    answers: Sequence[LoggedAnswer],
    resumed: int,
    metrics: Sequence[ReportMetric],
    guesses: Sequence[str],
    progress: Progress,
) -> EvaluationReport:
    """Score all answers, write both files, and warn of what a reader of the numbers has to know."""
    scores, finishes = write_scores(out, run, questions, answers, metrics), count_finishes(answers)
    unspaced = reading_warnings(scores.vqa.unspaced, questions.height)
    warnings = (*guesses, *finish_warnings(finishes, run["decoding"]["max_new_tokens"]), *unspaced)
    for line in as_warnings(warnings):
        progress.note(line)
    return EvaluationReport(
        out=out,
        run=run,
        scores=scores,
        finishes=finishes,
        warnings=warnings,
        seconds=sum(answer.seconds for answer in answers),
        forwards=sum(answer.forwards for answer in answers),
        resumed=resumed,
    )


def _overall(reading: ReadingSummary) -> dict[str, Any]:
    return {
        "open_recall": reading.open_recall.value,
        "open_questions": reading.open_recall.count,
        "closed_accuracy": reading.closed_accuracy.value,
        "closed_questions": reading.closed_accuracy.count,
        "choice_accuracy": reading.choice_accuracy.value,
        "choice_questions": reading.choice_accuracy.count,
        "unscored": reading.unscored,
    }
