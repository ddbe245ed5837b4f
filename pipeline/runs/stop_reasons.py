"""How answers stopped: at an end token, at the maximum length, or empty; and warnings about it."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .answer_log import UNKNOWN_FINISH, LoggedAnswer

SMALL_SHARE = 0.05
"""Largest fraction of answers that may be empty, or cut off, without a warning."""
FINISHES = ("end", "length", "empty", UNKNOWN_FINISH)


def count_finishes(answers: Iterable[LoggedAnswer]) -> dict[str, int]:
    """The number of answers for each way of stopping."""
    counts: Counter[str] = Counter(answer.finish for answer in answers)
    return {name: counts[name] for name in FINISHES}


def shown_finishes(counts: Mapping[str, int]) -> dict[str, Any]:
    """The counts for the summary; `None` for answers of earlier versions, which did not record it."""
    if counts[UNKNOWN_FINISH]:
        return {"empty_answers": None, "cut_off_answers": None}
    return {"empty_answers": counts["empty"], "cut_off_answers": counts["length"]}


def finish_warnings(counts: Mapping[str, int], max_new_tokens: int) -> list[str]:
    """A warning for each bad way in which more than a small fraction of answers stopped."""
    answers = sum(counts.values())
    empty, cut = (
        ("the answer is empty", "the answer was cut off")
        if answers == 1
        else (
            f"{counts['empty']} of {answers} answers are empty",
            f"{counts['length']} of {answers} answers were cut off",
        )
    )
    lines = []
    if counts["empty"] > SMALL_SHARE * answers:
        lines.append(
            f"{empty}: the student generated an end token immediately. Check that the prompt template is the one that "
            "it was trained with (--template, or template in a specification), and that it was trained for long enough"
        )
    if counts["length"] > SMALL_SHARE * answers:
        lines.append(
            f"{cut} at max_new_tokens {max_new_tokens}: increase it (--max-new-tokens, or max_new_tokens in a "
            "specification), or check the student's end tokens (docs/decoding.md)"
        )
    return lines


def reading_warnings(unspaced: int, questions: int) -> list[str]:
    """A warning if word-based scores do not apply because words are not separated by spaces."""
    if unspaced == 0:
        return []
    return [
        f"{unspaced} of {questions} reference answers are in Chinese or Japanese: `reference` scores and report "
        "metrics split words at spaces, so they do not apply to these answers; `strict` scores count "
        "characters (docs/metrics.md)"
    ]


def as_warnings(lines: Sequence[str]) -> list[str]:
    """Format lines as warnings."""
    return [f"warning: {line}" for line in lines]
