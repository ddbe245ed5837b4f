"""Open recall, closed and choice accuracy of answers to visual questions, in two readings (docs/metrics.md).

`reference` computes the same scores as LLaVA-Med's run_eval (and so the paper), including its quirks, so that numbers
can be compared with published ones. `strict` computes what these scores should mean.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from ...choices import Reading
from .answer_words import contains_phrase, is_unspaced, reference_text, reference_words, strict_words
from .choices import answer_index, reference_choice, strict_choice
from .polarity import answer_polarity, stated_polarity

Kind = Literal["open", "closed", "choice"]
READINGS: tuple[Reading, ...] = ("reference", "strict")
KINDS: tuple[Kind, ...] = ("open", "closed", "choice")
GROUPINGS = ("answer_type", "question_type", "modality", "organ")


@dataclass(frozen=True, slots=True)
class Score:
    """Score of one question in one reading."""

    kind: Kind
    value: float
    """Recall in [0, 1] for `open`; 0 or 1 for `closed` and `choice`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AnsweredQuestion:
    """A prediction, its reference answer, and the attributes by which scores are grouped."""

    prediction: str
    answer: str | None
    answer_type: str | None
    options: Sequence[str] | None = None
    """Options of a `choice` question."""
    question_type: str | None = None
    modality: str | None = None
    organ: str | None = None


@dataclass(frozen=True, slots=True)
class QuestionScores:
    """Scores of one question in both readings; `None` if a reading does not score it."""

    reference: Score | None
    strict: Score | None


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean and its number of questions; the mean of no questions is `None`."""

    value: float | None
    count: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadingSummary:
    """Mean scores of one reading."""

    open_recall: Mean
    closed_accuracy: Mean
    choice_accuracy: Mean
    unscored: int
    """Questions without a reference answer, of another answer type, or (strict) with an answer without words or, for
    `choice`, an answer that is not an option."""
    groups: dict[str, dict[str, dict[Kind, Mean]]]
    """Grouping (`modality`) -> its value (`CT`, or `unknown`) -> kind -> mean."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VqaSummary:
    """Mean scores of both readings for the same questions."""

    questions: int
    unspaced: int
    """Questions whose answer contains Chinese or Japanese: in `reference`, a sentence is one word, so it does not
    apply; in `strict`, each character is a word."""
    reference: ReadingSummary
    strict: ReadingSummary


def score_question(question: AnsweredQuestion) -> QuestionScores:
    """Score one answer in both readings."""
    if question.answer is None:
        return QuestionScores(None, None)
    if question.answer_type == "choice":
        return score_choice(question.prediction, question.answer, question.options or ())
    return QuestionScores(
        reference_score(question.prediction, question.answer, question.answer_type),
        strict_score(question.prediction, question.answer, question.answer_type),
    )


def score_choice(prediction: str, answer: str, options: Sequence[str]) -> QuestionScores:
    """Score whether a prediction chooses the correct option.

    `reference` also finds the answer's option by similarity, so if neither the prediction nor the answer is similar to
    any option, it counts as correct.
    """
    expected = answer_index(answer, options)
    hit = reference_choice(prediction, options) == reference_choice(answer, options)
    strict = None if expected is None else Score("choice", float(strict_choice(prediction, options) == expected))
    return QuestionScores(Score("choice", float(hit)) if options else None, strict)


def reference_score(prediction: str, answer: str, answer_type: str | None) -> Score | None:
    """Score one question like run_eval, which skips answer types other than open and closed."""
    if answer_type == "open":
        return Score("open", _reference_recall(prediction, answer))
    if answer_type in (None, "closed"):
        predicted, expected = reference_text(prediction.lower()), reference_text(answer.lower())
        committed = "yes" in predicted or "no" in predicted
        return Score("closed", float(committed and expected in predicted))
    return None


def _reference_recall(prediction: str, answer: str) -> float:
    """Recall with counts of the *predicted* words, so repeating a correct word increases it."""
    predicted, expected = Counter(reference_words(prediction)), Counter(reference_words(answer))
    hits = sum(count for word, count in predicted.items() if word in expected)
    missed = sum(count for word, count in expected.items() if word not in predicted)
    return hits / (hits + missed) if hits else 0.0


def strict_score(prediction: str, answer: str, answer_type: str | None) -> Score | None:
    """Clipped recall for open questions; whether the answer is stated, in whole words, for closed questions.

    Without an answer type, a question is closed if its answer is yes or no, and open otherwise.
    """
    predicted, expected = strict_words(prediction), strict_words(answer)
    if not expected or answer_type not in (None, "open", "closed"):
        return None
    polarity = answer_polarity(answer)
    if answer_type == "open" or (answer_type is None and polarity is None):
        overlap = Counter(predicted) & Counter(expected)
        return Score("open", overlap.total() / len(expected))
    if polarity is not None:
        return Score("closed", float(stated_polarity(prediction) == polarity))
    return Score("closed", float(contains_phrase(predicted, expected)))


def summarize(questions: Sequence[AnsweredQuestion]) -> VqaSummary:
    """Score every question and compute the means of both readings, overall and by group."""
    scores = [score_question(question) for question in questions]
    return VqaSummary(
        questions=len(questions),
        unspaced=sum(is_unspaced(question.answer or "") for question in questions),
        reference=summarize_reading(questions, [score.reference for score in scores]),
        strict=summarize_reading(questions, [score.strict for score in scores]),
    )


def summarize_reading(questions: Sequence[AnsweredQuestion], scores: Sequence[Score | None]) -> ReadingSummary:
    """Compute the mean scores of one reading; `scores` are in the order of `questions`."""
    scored = [(question, score) for question, score in zip(questions, scores, strict=True) if score is not None]
    means = _means(score for _, score in scored)
    return ReadingSummary(
        open_recall=means["open"],
        closed_accuracy=means["closed"],
        choice_accuracy=means["choice"],
        unscored=len(questions) - len(scored),
        groups={grouping: _by_group(scored, grouping) for grouping in GROUPINGS},
    )


def _by_group(scored: Iterable[tuple[AnsweredQuestion, Score]], grouping: str) -> dict[str, dict[Kind, Mean]]:
    members: dict[str, list[Score]] = defaultdict(list)
    for question, score in scored:
        members[getattr(question, grouping) or "unknown"].append(score)
    return {name: _means(scores) for name, scores in sorted(members.items())}


def _means(scores: Iterable[Score]) -> dict[Kind, Mean]:
    values: dict[Kind, list[float]] = {kind: [] for kind in KINDS}
    for score in scores:
        values[score.kind].append(score.value)
    return {kind: Mean(sum(scored) / len(scored) if scored else None, len(scored)) for kind, scored in values.items()}
