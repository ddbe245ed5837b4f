"""A few right, wrong and empty answers of an evaluation, as lines for the terminal."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import polars as pl
from rich.cells import cell_len, set_cell_size

from ...plain_text import shown
from ...student.metrics.vqa import QuestionScores
from ..runs.answer_log import LoggedAnswer

Outcome = Literal["right", "wrong", "empty"]
MOST: Final[dict[Outcome, int]] = {"right": 3, "wrong": 3, "empty": 2}
"""Number of examples of each kind."""
LINE_WIDTH: Final = 80
_CUT: Final = "..."
_LEAST: Final = 12
"""Smallest width to which a column is shortened, in terminal cells."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExampleAnswer:
    """One question with its reference answer and the student's answer."""

    outcome: Outcome
    question: str
    reference: str
    answer: str


def example_answers(
    questions: pl.DataFrame, answers: Sequence[LoggedAnswer], scores: Sequence[QuestionScores]
) -> tuple[ExampleAnswer, ...]:
    """Right answers (`strict` score 1), wrong ones (0) and empty ones, spread evenly over the questions."""
    found: dict[Outcome, list[ExampleAnswer]] = {name: [] for name in MOST}
    asked = questions.select("question", "answer").iter_rows()
    for (question, reference), answer, score in zip(asked, answers, scores, strict=True):
        outcome = _outcome(answer, score)
        if outcome is not None:
            example = ExampleAnswer(
                outcome=outcome, question=question, reference=reference or "", answer=answer.prediction
            )
            found[outcome].append(example)
    return tuple(example for name, examples in found.items() for example in _spread(examples, MOST[name]))


def example_lines(examples: Sequence[ExampleAnswer], width: int = LINE_WIDTH) -> list[str]:
    """One line for each example, at most `width` terminal cells wide: outcome, question, reference, answer.

    Texts are shortened at the ends of words, the longest column first.
    """
    if not examples:
        return []
    rows: list[tuple[str, ...]] = [("", "question", "reference", "answer")]
    rows += [(e.outcome, *(_one_line(text) for text in (e.question, e.reference, e.answer))) for e in examples]
    columns = list(zip(*rows, strict=True))
    outcome, *needed = (max(map(cell_len, column)) for column in columns)
    widths = [outcome, *_fitting(needed, width - outcome - 2 * len(needed))]
    return [
        "  ".join(set_cell_size(shortened(cell, size), size) for cell, size in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def shortened(text: str, width: int) -> str:
    """The text in at most `width` terminal cells, cut after a word if that keeps at least half of them.

    >>> from medalign.pipeline.evaluation.example_answers import shortened
    >>> shortened("a small left effusion", 16), shortened("cardiomegaly", 8)
    ('a small left...', 'cardi...')
    """
    if cell_len(text) <= width:
        return text
    kept = set_cell_size(text, max(0, width - len(_CUT))).rstrip()
    at_word_end = text[len(kept) :].startswith(" ")
    words = kept if at_word_end else kept.rpartition(" ")[0].rstrip()
    return (words if cell_len(words) >= width // 2 else kept) + _CUT[:width]


def _outcome(answer: LoggedAnswer, score: QuestionScores) -> Outcome | None:
    if not answer.prediction.strip():
        return "empty"
    value = None if score.strict is None else score.strict.value
    return "right" if value == 1 else "wrong" if value == 0 else None


def _spread(examples: Sequence[ExampleAnswer], number: int) -> list[ExampleAnswer]:
    """At most `number` examples at equal distances, of distinct questions where there are enough."""
    distinct: dict[str, ExampleAnswer] = {}
    for example in examples:
        distinct.setdefault(example.question, example)
    chosen = list(distinct.values()) if len(distinct) >= number else examples
    return [chosen[index * len(chosen) // number] for index in range(number)] if len(chosen) > number else list(chosen)


def _one_line(text: str) -> str:
    return shown(" ".join(text.split())) or "-"


def _fitting(needed: Sequence[int], available: int) -> list[int]:
    """Widths of columns, reduced from what they need until they fit; the widest is reduced first."""
    widths = list(needed)
    while sum(widths) > available and max(widths) > _LEAST:
        widths[widths.index(max(widths))] -= 1
    return widths
