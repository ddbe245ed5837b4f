"""Cards of an evaluation's page: a random sample of questions with their images and answers."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from ....choices import AnswerState
from ....plain_text import counted
from ...data.samples import with_options
from ..figures.overlays import small_jpeg
from ..page import Sample, SampleAnswer
from .evaluation_scores import SEED, SavedScores
from .run_questions import RunQuestions

CARDS: Final = 50
_SIDE: Final = 320
"""Longest side of a picture, in pixels."""
_SEVERITY: Final[dict[AnswerState, int]] = {"empty": 0, "wrong": 1, "partly right": 2, "right": 3, "not scored": 4}


def sample_rows(scores: SavedScores, most: int = CARDS) -> list[int]:
    """The indices of `most` random questions, in order; always the same for a number of questions."""
    drawn = np.random.default_rng(SEED).permutation(scores.table.height)[:most]
    return sorted(int(index) for index in drawn)


def cards(scores: SavedScores, questions: RunQuestions, name: str, most: int = CARDS) -> list[Sample]:
    """Cards of a random sample of questions; empty and wrong answers first.

    Args:
        scores: The saved answers.
        questions: Their manifest rows and images.
        name: Who answered.
        most: The number of cards.
    """
    chosen = sample_rows(scores, most)
    reports = [metric for metric in scores.metrics.get("reports", {}) if metric in scores.table.columns]
    rows = [(index, scores.table.row(index, named=True)) for index in chosen]
    rows.sort(key=lambda numbered: _worst_first(numbered[1], reports))
    return [_card(row, place, index, questions, name, reports) for place, (index, row) in enumerate(rows)]


def state_of(row: dict[str, Any]) -> AnswerState:
    """How an answer is to be read: by its strict score, unless it has no text."""
    score = row["strict_score"]
    if not row["prediction"].strip():
        return "empty"
    if score is None:
        return "not scored"
    return "right" if score == 1 else "wrong" if score == 0 else "partly right"


def samples_text(scores: SavedScores, shown: Sequence[Sample], missing: str) -> str:
    """How the cards were chosen, and which pictures are missing."""
    number = scores.table.height
    drawn = (
        f"All {counted(number, 'question')}"
        if len(shown) == number
        else f"{len(shown)} of {number:,} questions, drawn at random (always the same ones), so their shares of right "
        "and wrong answers are estimates of those above"
    )
    text = f"{drawn}; empty and wrong answers come first. Right and wrong are the strict scores 1 and 0."
    return f"{text} {missing}".strip()


def _worst_first(row: dict[str, Any], reports: Sequence[str]) -> tuple[float, float]:
    score = row["strict_score"]
    if score is None and reports:
        score = row[reports[0]]
    return _SEVERITY[state_of(row)], 0.0 if score is None else score


def _card(
    row: dict[str, Any], place: int, index: int, questions: RunQuestions, name: str, reports: Sequence[str]
) -> Sample:
    state, known = state_of(row), questions.rows.get(row["question_id"], {})
    hashes = row["image_hashes"]
    image = questions.image(row["question_id"], hashes[0] if hashes else None)
    numbers = {f"{title} score": row[f"{title}_score"] for title in ("strict", "reference")}
    numbers |= {metric: row[metric] for metric in reports}
    kind = row["strict_kind"] or row["answer_type"] or "other"
    return Sample(
        name=row["question_id"],
        question=with_options(row["question"], known.get("options") or ()),
        reference=row["answer"] or "(none)",
        answers=[
            SampleAnswer(
                name=name,
                text=row["prediction"],
                state=state,
                numbers={title: value for title, value in numbers.items() if value is not None},
            )
        ],
        picture=None if image is None else small_jpeg(image, _SIDE),
        alt=_alt(row),
        labels=[state, kind, *(["cut off"] if row["finish"] == "length" else []), *filter(None, [row["modality"]])],
        keys={
            "wrong answers first": place,
            "order of the questions": index,
            "longest answers first": -len(row["prediction"]),
        },
    )


def _alt(row: dict[str, Any]) -> str:
    shows = ", ".join(filter(None, [row["modality"], row["organ"]]))
    several = len(row["image_hashes"])
    which = f"The first of {several} images" if several > 1 else "The image"
    return f"{which} of question {row['question_id']}{f': {shows}' if shows else ''}"
