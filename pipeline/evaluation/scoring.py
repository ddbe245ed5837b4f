"""Score saved answers: visual questions as `reference` and `strict`, and reports by every available metric.

Scoring needs no student: saved answers can be scored again at any time.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, StrictInt, TypeAdapter

from ...choices import Reading
from ...errors import InputError
from ...saved_records import check_record, parse_record
from ...student import file_errors
from ...student.metrics.reports.catalog import report_metrics
from ...student.metrics.reports.report_metric import ReportMetric
from ...student.metrics.result import AbsentMetric, MetricResult, mean_result
from ...student.metrics.vqa import (
    KINDS,
    READINGS,
    AnsweredQuestion,
    Kind,
    QuestionScores,
    VqaSummary,
    score_question,
    summarize,
)
from ..assets.asset_registry import asset_digests, local_assets
from ..data import saved_tables
from ..data.manifest_images import IMAGE_HASHES
from ..runs.answer_log import ANSWER, UNKNOWN_FINISH, LoggedAnswer, write_table, write_whole
from ..runs.run_record import check_joined_conditions
from ..runs.stop_reasons import count_finishes, finish_warnings, reading_warnings
from .batches.conditions import condition_warnings
from .statistics import few_images_warnings

PREDICTIONS_FILE = "predictions.parquet"
TIMINGS_FILE = "timings.parquet"
METRICS_FILE = "metrics.json"
PREDICTIONS_FORMAT = "medalign-predictions"
PREDICTIONS_VERSION = 3
"""Version 2 had the seconds of each answer in the same file, so the bytes of two runs always differed."""
REPORT = "report"


class _Header(BaseModel):
    """The metadata of a result table."""

    model_config = ConfigDict(frozen=True)

    version: StrictInt
    run: dict[str, Any]


_HEADER: Final = TypeAdapter(_Header)
_AGAIN: Final = "Copy the folder again, or evaluate again with another --out"


@dataclass(frozen=True, kw_only=True)
class Scores:
    """All scores of the answers."""

    vqa: VqaSummary
    questions: tuple[QuestionScores, ...]
    """Both scores of each question, in order."""
    reports: tuple[MetricResult | AbsentMetric, ...]
    """Over all questions; questions without a report are unscored. Empty if there are no reports."""

    @property
    def results(self) -> tuple[MetricResult | AbsentMetric, ...]:
        """The results for the bootstrap: each kind of answer in each scoring, then the report metrics."""
        answers = (_answer_result(self.questions, kind, reading) for reading in READINGS for kind in KINDS)
        return (*answers, *self.reports)


def available_metrics(device: str) -> list[ReportMetric]:
    """Every report metric, or why it is not available; models run on `device`."""
    return report_metrics(local_assets(), device=device)


def score_answers(questions: pl.DataFrame, predictions: Sequence[str], metrics: Sequence[ReportMetric]) -> Scores:
    """Score the predictions for a manifest's questions; `metrics` are for reports."""
    asked = answered_questions(questions, predictions)
    return Scores(
        vqa=summarize(asked),
        questions=tuple(score_question(question) for question in asked),
        reports=_report_results(questions, predictions, metrics),
    )


def write_scores(
    out: Path,
    run: dict[str, Any],
    questions: pl.DataFrame,
    answers: Sequence[LoggedAnswer],
    metrics: Sequence[ReportMetric],
    conditions: Mapping[str, Any] | None = None,
    guesses: Sequence[str] = (),
) -> Scores:
    """Score answers and write all files, metrics last: a folder that has them is complete.

    `predictions.parquet` is identical for two runs with equal answers. `conditions` are those of the answers; `None`
    keeps the ones in metrics.json. `guesses` are warnings from before the first answer.
    """
    scores = score_answers(questions, [answer.prediction for answer in answers], metrics)
    cost = {
        "seconds": sum(answer.seconds for answer in answers),
        "forwards": sum(answer.forwards for answer in answers),
    }
    header = {"format": PREDICTIONS_FORMAT, "version": PREDICTIONS_VERSION, "run": run}
    if conditions is None:
        conditions = read_conditions(out)
    write_table(out / TIMINGS_FILE, _timings(answers), header)
    write_table(out / PREDICTIONS_FILE, predictions_table(questions, answers, scores), header)
    finishes = count_finishes(answers)
    values = {
        "run": run,
        **cost,
        "conditions": conditions,
        "finishes": finishes,
        "scores": asdict(scores.vqa),
        "reports": report_values(scores),
        "guesses": list(guesses),
    }
    if scores.reports:
        values["assets"] = asset_digests()
    write_whole(out / METRICS_FILE, json.dumps(values, indent=2) + "\n")
    return scores


def read_conditions(out: Path) -> dict[str, Any]:
    """Versions, devices and the kept fraction of the LoRA update of a finished evaluation; empty if not recorded."""
    path = out / METRICS_FILE
    found = file_errors.read_object(path).get("conditions") if file_errors.is_file(path) else None
    return {} if found is None else check_joined_conditions(found, path)


def saved_warnings(metrics: Mapping[str, Any], questions: int, images: int) -> list[str]:
    """All warnings about a finished evaluation, from its metrics.json: the terminal and the page have the same."""
    run = metrics["run"]
    return [
        *metrics.get("guesses", ()),
        *condition_warnings(metrics.get("conditions") or {}, run),
        *finish_warnings(metrics["finishes"], run["decoding"]["max_new_tokens"]),
        *reading_warnings(metrics["scores"]["unspaced"], questions),
        *few_images_warnings(images),
    ]


def _timings(answers: Sequence[LoggedAnswer]) -> pl.DataFrame:
    """One row per question: its share of the seconds of its batch."""
    return pl.DataFrame(
        {
            "question_id": pl.Series([answer.question_id for answer in answers], dtype=pl.String),
            "seconds": pl.Series([answer.seconds for answer in answers], dtype=pl.Float64),
        }
    )


def read_answers(out: Path, run: Mapping[str, Any], question_ids: Sequence[str]) -> list[LoggedAnswer]:
    """The answers of a finished evaluation.

    Args:
        out: Its folder.
        run: The content of run.json, which the table must match.
        question_ids: The questions, in order.

    Raises:
        InputError: There are none, another version of medalign wrote them, or they are from another run or for other
            questions.
    """
    path = out / PREDICTIONS_FILE
    if not file_errors.is_file(path):
        raise InputError(f"{out} has {METRICS_FILE} but no {PREDICTIONS_FILE}: evaluate again with another --out")
    recorded, table = _read_tables(out)
    now = json.loads(json.dumps(dict(run)))
    differing = sorted(key for key in {*recorded, *now} if recorded.get(key) != now.get(key))
    if differing:
        listed = "; ".join(f"{key}: {recorded.get(key)!r}, expected {now.get(key)!r}" for key in differing)
        raise InputError(f"{path} has answers of a different run from {out} ({listed}): pass another --out")
    answers = [
        check_record(ANSWER, row, path, f"row {number} (its seconds are in {TIMINGS_FILE})", _AGAIN)
        for number, row in enumerate(table.iter_rows(named=True), start=1)
    ]
    if [answer.question_id for answer in answers] != list(question_ids):
        raise InputError(f"{path} has answers to questions other than this run's: pass another --out")
    return answers


def _read_tables(out: Path) -> tuple[dict[str, Any], pl.DataFrame]:
    """The run recorded in the table of a finished evaluation, and the columns for `LoggedAnswer`."""
    path, timings = out / PREDICTIONS_FILE, out / TIMINGS_FILE
    saved = saved_tables.read(path, _AGAIN)
    with file_errors.reading(path):
        header = parse_record(_HEADER, saved.header or "null", path, "metadata", _AGAIN)
        if header.version not in (2, PREDICTIONS_VERSION):
            raise InputError(
                f"{path} has version {header.version}, but this medalign reads 2 and {PREDICTIONS_VERSION}: evaluate "
                "again with another --out"
            )
        table = saved.rows
        if "finish" not in table.columns:  # from a version that did not record it
            table = table.with_columns(finish=pl.lit(UNKNOWN_FINISH))
        columns = ["question_id", "prediction", "forwards", "finish"]
        if header.version != PREDICTIONS_VERSION:
            return header.run, table.select(*columns, "seconds")
        table = table.select(columns)
    if not file_errors.is_file(timings):
        raise InputError(f"{out} has {PREDICTIONS_FILE} but no {TIMINGS_FILE}: copy the complete folder")
    kept = saved_tables.read(timings, _AGAIN).rows
    with file_errors.reading(timings):
        seconds = kept.select("question_id", "seconds")
        return header.run, table.join(seconds, on="question_id", how="left", maintain_order="left")


def answered_questions(questions: pl.DataFrame, predictions: Sequence[str]) -> list[AnsweredQuestion]:
    """Rows of a manifest with their predictions, for the metrics."""
    columns = ["answer", "answer_type", "options", "question_type", "modality", "organ"]
    return [
        AnsweredQuestion(prediction=prediction, **row)
        for prediction, row in zip(predictions, questions.select(columns).iter_rows(named=True), strict=True)
    ]


def predictions_table(questions: pl.DataFrame, answers: Sequence[LoggedAnswer], scores: Scores) -> pl.DataFrame:
    """One row per question: the question, the answer, its cost, and all its scores."""
    asked = ["question", "answer", "answer_type", "question_type", "modality", "organ"]
    kept = ["question_id", "image_hash", IMAGE_HASHES.alias("image_hashes"), *asked]
    added = [
        pl.Series("prediction", [answer.prediction for answer in answers], dtype=pl.String),
        pl.Series("forwards", [answer.forwards for answer in answers], dtype=pl.Int64),
        pl.Series("finish", [answer.finish for answer in answers], dtype=pl.String),
    ]
    for reading in READINGS:
        found = [getattr(score, reading) for score in scores.questions]
        kinds = [None if score is None else score.kind for score in found]
        values = [None if score is None else score.value for score in found]
        added.append(pl.Series(f"{reading}_kind", kinds, dtype=pl.String))
        added.append(pl.Series(f"{reading}_score", values, dtype=pl.Float64))
    added += [_report_column(result) for result in scores.reports if isinstance(result, MetricResult)]
    return questions.select(kept).with_columns(added)


def report_values(scores: Scores) -> dict[str, dict[str, Any]]:
    """Value and number of reports of each report metric, or why it is absent."""
    return {
        result.name: {"absent": result.reason}
        if isinstance(result, AbsentMetric)
        else {"value": result.value, "count": int(result.scored.sum())}
        for result in scores.reports
    }


def _answer_result(scores: Sequence[QuestionScores], kind: Kind, reading: Reading) -> MetricResult:
    found = (getattr(score, reading) for score in scores)
    values = [score.value if score is not None and score.kind == kind else None for score in found]
    return mean_result(f"{kind}_{reading}", values)


def _report_results(
    questions: pl.DataFrame, predictions: Sequence[str], metrics: Sequence[ReportMetric]
) -> tuple[MetricResult | AbsentMetric, ...]:
    asked = questions.select(is_report=(pl.col("answer_type") == REPORT) & pl.col("answer").is_not_null())
    places = asked["is_report"].fill_null(False).arg_true().to_list()
    if not places:
        return ()
    said, written = [predictions[place] for place in places], questions["answer"].gather(places).to_list()
    return tuple(_spread(metric.score(said, written), places, questions.height) for metric in metrics)


def _spread(result: MetricResult | AbsentMetric, places: Sequence[int], questions: int) -> MetricResult | AbsentMetric:
    """Expand a result over some questions to all questions."""
    if isinstance(result, AbsentMetric):
        return result
    parts = np.zeros((questions, result.parts.shape[1]))
    parts[list(places)] = result.parts
    return MetricResult(name=result.name, parts=parts, combine=result.combine)


def _report_column(result: MetricResult) -> pl.Series:
    """The metric of each single report."""
    alone = np.full(len(result.parts), np.nan)
    alone[result.scored] = result.combine(result.parts[result.scored])
    return pl.Series(result.name, alone).fill_nan(None)
