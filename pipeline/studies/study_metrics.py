"""The metrics of a study, from the scores of single answers."""

from typing import Final

import polars as pl

from ...student.metrics.result import MetricResult, mean_result
from ...student.metrics.vqa import KINDS, READINGS, AnsweredQuestion, score_question

ALL: Final = "all"
METRIC_NAMES: Final = tuple(f"{kind}_{reading}" for reading in sorted(READINGS, reverse=True) for kind in (ALL, *KINDS))
"""`all_strict`, `open_strict`, ...; `all` is the mean over every scored question, whatever its kind."""


def scores_any(questions: pl.DataFrame, name: str) -> bool:
    """Whether a metric scores any of these questions of a manifest, whatever is answered."""
    kind, _, reading = name.partition("_")
    for row in questions.select("answer", "answer_type", "options").iter_rows(named=True):
        score = getattr(score_question(AnsweredQuestion(prediction="", **row)), reading)
        if score is not None and kind in (ALL, score.kind):
            return True
    return False


def metric_result(predictions: pl.DataFrame, name: str) -> MetricResult:
    """One metric of the rows of predictions.parquet, question by question."""
    kind, _, reading = name.partition("_")
    scored = pl.col(f"{reading}_kind").is_not_null() if kind == ALL else pl.col(f"{reading}_kind") == kind
    values = predictions.select(pl.when(scored).then(pl.col(f"{reading}_score"))).to_series()
    return mean_result(name, values.to_list())
