"""Answers and losses of every arm, and what changed from the base."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from ....choices import AnswerState
from ....student.decoding.generation import Answer
from ....student.metrics.result import MetricResult, mean_result
from ....student.metrics.vqa import Score, score_question
from ...data.manifest import Manifest
from ...evaluation.scoring import answered_questions
from ...evaluation.statistics import Difference, Interval, bootstrap_difference, bootstrap_interval
from .question_capture import ArmQuestions

_SEED = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class ArmAnswer:
    """One arm's answer to one question."""

    answer: Answer
    strict: Score | None
    """None if the question is not scored: without a reference, or a report."""
    loss_lm: float | None

    @property
    def state(self) -> AnswerState:
        if not self.answer.text:
            return "empty"
        if self.strict is None:
            return "not scored"
        return "right" if self.strict.value == 1 else "wrong" if self.strict.value == 0 else "partly right"

    @property
    def score(self) -> float | None:
        """The `strict` score, in [0, 1]."""
        return None if self.strict is None else self.strict.value


@dataclass(frozen=True, kw_only=True, slots=True)
class ArmSummary:
    """One arm's answers to all questions, against the base."""

    states: Mapping[AnswerState, int]
    score: float | None
    """Mean `strict` score."""
    score_interval: Interval | None
    loss_lm: float | None
    """Mean over questions of the loss of the reference, in nats per token."""
    better: int
    """Questions with a higher score than the base's; 0 for the base."""
    worse: int
    score_change: Difference | None
    """From the base, with a 95 % interval over images; None for the base."""
    loss_change: Difference | None


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class AnswerFindings:
    """All answers, by arm and in the order of the questions; the first arm is the base."""

    answers: Mapping[str, tuple[ArmAnswer, ...]]
    summaries: Mapping[str, ArmSummary]
    table: pl.DataFrame
    """One row per question and arm."""

    @property
    def base(self) -> str:
        return next(iter(self.answers))

    def change(self, arm: str, index: int) -> float | None:
        """By how much an arm's score of a question is above the base's; None if it is not scored."""
        return _gap(self.answers[self.base][index].score, self.answers[arm][index].score)

    def loss_change(self, arm: str, index: int) -> float | None:
        """By how much an arm's loss of the reference is above the base's, in nats per token."""
        return _gap(self.answers[self.base][index].loss_lm, self.answers[arm][index].loss_lm)


def compare_answers(asked: Manifest, parts: Mapping[str, ArmQuestions]) -> AnswerFindings:
    """Score the answers of every arm and compare them with those of the first one."""
    answers = {name: _arm_answers(asked, part) for name, part in parts.items()}
    images = asked.frame["image_hash"].to_list()
    base = next(iter(answers.values()))
    return AnswerFindings(
        answers=answers,
        summaries={name: _summary(base, arm, images) for name, arm in answers.items()},
        table=pl.concat([_rows(asked, name, base, arm) for name, arm in answers.items()]),
    )


def _arm_answers(asked: Manifest, part: ArmQuestions) -> tuple[ArmAnswer, ...]:
    questions = answered_questions(asked.frame, [answer.text for answer in part.answers])
    return tuple(
        ArmAnswer(answer=answer, strict=score_question(question).strict, loss_lm=loss)
        for question, answer, loss in zip(questions, part.answers, part.loss_lm, strict=True)
    )


def _summary(base: Sequence[ArmAnswer], arm: Sequence[ArmAnswer], images: Sequence[str]) -> ArmSummary:
    states: dict[AnswerState, int] = dict.fromkeys(("right", "partly right", "wrong", "empty", "not scored"), 0)
    for answer in arm:
        states[answer.state] += 1
    score, loss = _scores(arm), _losses(arm)
    changes = [_gap(before.score, after.score) or 0.0 for before, after in zip(base, arm, strict=True)]
    is_base = arm is base
    return ArmSummary(
        states=states,
        score=score.value,
        score_interval=bootstrap_interval(score, images, seed=_SEED),
        loss_lm=loss.value,
        better=sum(change > 0 for change in changes),
        worse=sum(change < 0 for change in changes),
        score_change=None if is_base else bootstrap_difference(_scores(base), score, images, seed=_SEED),
        loss_change=None if is_base else bootstrap_difference(_losses(base), loss, images, seed=_SEED),
    )


def _scores(arm: Sequence[ArmAnswer]) -> MetricResult:
    return mean_result("strict", [answer.score for answer in arm])


def _losses(arm: Sequence[ArmAnswer]) -> MetricResult:
    return mean_result("loss_lm", [answer.loss_lm for answer in arm])


def _rows(asked: Manifest, name: str, base: Sequence[ArmAnswer], arm: Sequence[ArmAnswer]) -> pl.DataFrame:
    kept = ["question_id", "image_hash", "question", "answer", "answer_type", "question_type", "modality", "organ"]
    pairs = list(zip(base, arm, strict=True))
    columns: dict[str, tuple[Sequence[Any], Any]] = {
        "prediction": ([answer.answer.text for answer in arm], pl.String),
        "finish": ([answer.answer.finish for answer in arm], pl.String),
        "state": ([answer.state for answer in arm], pl.String),
        "strict_kind": ([None if answer.strict is None else answer.strict.kind for answer in arm], pl.String),
        "strict_score": ([answer.score for answer in arm], pl.Float64),
        "loss_lm": ([answer.loss_lm for answer in arm], pl.Float64),
        "score_change": ([_gap(before.score, after.score) for before, after in pairs], pl.Float64),
        "loss_change": ([_gap(before.loss_lm, after.loss_lm) for before, after in pairs], pl.Float64),
    }
    added = [pl.Series(column, values, dtype=kind) for column, (values, kind) in columns.items()]
    return asked.frame.select(kept).with_columns(pl.lit(name).alias("arm"), *added)


def _gap(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else after - before
