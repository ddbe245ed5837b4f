"""How answers stopped: at an end token, cut off at the longest length, or without a word; and when to warn of it."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .answer_log import UNKNOWN_FINISH, LoggedAnswer

SMALL_SHARE = 0.05
"""Up to this share of answers may be empty, or cut off, without a warning."""
FINISHES = ("end", "length", "empty", UNKNOWN_FINISH)


def count_finishes(answers: Iterable[LoggedAnswer]) -> dict[str, int]:
    """How many answers stopped in each way."""
    counts: Counter[str] = Counter(answer.finish for answer in answers)
    return {name: counts[name] for name in FINISHES}


def shown_finishes(counts: Mapping[str, int]) -> dict[str, Any]:
    """The counts for people; `None` for answers of an earlier version, which did not record it."""
    if counts[UNKNOWN_FINISH]:
        return {"empty_answers": None, "cut_off_answers": None}
    return {"empty_answers": counts["empty"], "cut_off_answers": counts["length"]}


def finish_warnings(counts: Mapping[str, int], max_new_tokens: int) -> list[str]:
    """A line for each way that more than a small share of the answers should not have stopped in."""
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
            f"{empty}: the student said nothing before an end token. Check that the prompt template is the one that it "
            "was trained with (--template)"
        )
    if counts["length"] > SMALL_SHARE * answers:
        lines.append(
            f"{cut} at max_new_tokens {max_new_tokens}: allow more with --max-new-tokens, or check the student's end "
            "tokens (docs/decoding.md)"
        )
    return lines


def reading_warnings(unspaced: int, questions: int) -> list[str]:
    """A line where readings do not apply because words have no borders."""
    if unspaced == 0:
        return []
    return [
        f"{unspaced} of {questions} reference answers are in Chinese or Japanese: the reference reading and the report "
        "metrics take what stands between spaces for a word, so they do not apply there; the strict reading counts "
        "characters (docs/metrics.md)"
    ]


def as_warnings(lines: Sequence[str]) -> list[str]:
    """Lines as they are printed."""
    return [f"warning: {line}" for line in lines]
