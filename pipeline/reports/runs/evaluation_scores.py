"""Scores of a finished evaluation with intervals, computed from the saved scores of its questions."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import polars as pl

from ....choices import Reading
from ....errors import InputError
from ....plain_text import as_typed
from ....student.file_errors import read_object
from ....student.metrics.result import mean_result
from ....student.metrics.vqa import GROUPINGS, KINDS, Kind, strict_score
from ...data import saved_tables
from ...data.manifest_images import question_groups
from ...evaluation.scoring import METRICS_FILE, PREDICTIONS_FILE
from ...evaluation.statistics import Difference, bootstrap_difference, bootstrap_interval

SEED: Final = 0
UNKNOWN: Final = "not stated"
MEASURED: Final[dict[Kind, str]] = {"open": "recall", "closed": "accuracy", "choice": "accuracy"}
_TOLERANCE: Final = 1e-6


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A mean over questions, with a 95 % interval over the choice of images."""

    value: float
    low: float | None
    high: float | None
    """The interval; `None` for fewer than two images, and if all have the same score, which leaves nothing to draw."""
    questions: int
    images: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Frequent:
    """What always giving the most frequent reference answer would score on the closed questions."""

    answer: str
    value: float
    difference: Difference
    """The student's score minus `value`."""


@dataclass(frozen=True, kw_only=True)
class SavedScores:
    """The files of a finished evaluation."""

    metrics: dict[str, Any]
    """metrics.json."""
    table: pl.DataFrame
    """predictions.parquet."""
    groups: list[str]
    """The image, or group of shared images, of each question."""

    @property
    def images(self) -> int:
        return len(set(self.groups))

    def estimate(self, values: Sequence[float | None]) -> Estimate | None:
        """The mean of one value per question; `None` if all are missing."""
        result = mean_result("value", values)
        interval = bootstrap_interval(result, self.groups, seed=SEED)
        if interval is None or result.value is None:
            return None
        least = 0.0 if (result.parts >= 0).all() else -1.0  # with few images, intervals may exceed the range of a score
        low, high = (None if end != end else min(max(end, least), 1.0) for end in (interval.low, interval.high))
        if low is not None and high is not None and high - low < _TOLERANCE:
            low = high = None
        scored = {group for group, is_scored in zip(self.groups, result.scored, strict=True) if is_scored}
        return Estimate(value=result.value, low=low, high=high, questions=int(result.scored.sum()), images=len(scored))

    def kind(self, kind: Kind, reading: Reading, rows: pl.Expr | None = None) -> Estimate | None:
        """The score of one kind of question; of some `rows` only, if given."""
        return self.estimate(self._values(kind, reading, rows))

    def by_group(self, grouping: str, reading: Reading = "strict") -> Iterator[tuple[str, Kind, Estimate]]:
        """The scores of each value of a column and each kind of question, the most frequent value first."""
        names = self.table[grouping].fill_null(UNKNOWN)
        order = names.value_counts(sort=True)[grouping].to_list() if names.n_unique() > 1 else []
        for name in order:
            for kind in KINDS:
                found = self.kind(kind, reading, pl.col(grouping).fill_null(UNKNOWN) == name)
                if found is not None:
                    yield name, kind, found

    def groupings(self) -> list[str]:
        """The columns with more than one value, without the answer type where it is the same as the kind."""
        return [name for name in GROUPINGS[1:] if self.table[name].fill_null(UNKNOWN).n_unique() > 1]

    def most_frequent_answer(self) -> Frequent | None:
        """The comparison of the strict closed accuracy with one constant answer; `None` without closed questions."""
        closed = self.table.filter(pl.col("strict_kind") == "closed")
        if closed.is_empty():
            return None
        answers = closed["answer"].str.strip_chars().str.to_lowercase()
        answer = answers.value_counts(sort=True)[0, "answer"]
        constant = [
            None if kind != "closed" or (score := strict_score(answer, reference, kept)) is None else score.value
            for reference, kept, kind in self.table.select("answer", "answer_type", "strict_kind").iter_rows()
        ]
        before, after = (mean_result("closed", values) for values in (constant, self._values("closed", "strict", None)))
        difference = bootstrap_difference(before, after, self.groups, seed=SEED)
        assert before.value is not None  # there are closed questions
        assert difference is not None
        return Frequent(answer=answer, value=before.value, difference=difference)

    def _values(self, kind: Kind, reading: Reading, rows: pl.Expr | None) -> list[float | None]:
        chosen = pl.col(f"{reading}_kind") == kind
        chosen = chosen if rows is None else chosen & rows
        values: list[float | None] = self.table.select(pl.when(chosen).then(f"{reading}_score"))[:, 0].to_list()
        return values


def read_scores(out: Path) -> SavedScores:
    """Read the files of a finished evaluation, and check that they belong together.

    Raises:
        InputError: A file is missing or damaged, or the two disagree.
    """
    again = f"`medalign student evaluate --resume --out {as_typed(out)}` with the same options scores the answers again"
    metrics = read_object(out / METRICS_FILE)
    table = saved_tables.read(out / PREDICTIONS_FILE, again).rows
    needed = {"question_id", "question", "answer", "prediction", "finish", "strict_score", "reference_score"}
    if missing := sorted(needed - set(table.columns)):
        raise InputError(f"{out / PREDICTIONS_FILE} has no column {', '.join(missing)}: {again}")
    if "image_hashes" not in table.columns:  # from a version without questions about several images
        table = table.with_columns(pl.concat_list("image_hash").list.drop_nulls().alias("image_hashes"))
    groups = question_groups(table["image_hashes"], table["question_id"])
    scores = SavedScores(metrics=metrics, table=table, groups=groups)
    _check_same(scores, out, again)
    return scores


def _check_same(scores: SavedScores, out: Path, again: str) -> None:
    for kind in KINDS:
        recorded = scores.metrics["scores"]["strict"][f"{kind}_{MEASURED[kind]}"]["value"]
        values = [value for value in scores._values(kind, "strict", None) if value is not None]
        mean = sum(values) / len(values) if values else None
        if (recorded is None) != (mean is None) or (mean is not None and abs(mean - recorded) > _TOLERANCE):
            raise InputError(
                f"{out / METRICS_FILE} has {recorded} as the strict score of {kind} questions, but "
                f"{PREDICTIONS_FILE} has {mean}: {again}"
            )
