"""Which option a prediction chooses, in two readings (docs/metrics.md)."""

import re
import unicodedata
from collections.abc import Sequence
from difflib import SequenceMatcher

from .answer_words import strict_words

REFERENCE_OPTIONS = 4
"""The paper's run_eval reads only option_A to option_D."""

_NAMED_LETTER = re.compile(
    r"\W*(?:(?:the\s+)?(?:correct\s+|best\s+)?(?:answer|option|choice)(?:\s+is)?\W*)*\(?([A-Za-z])(?:[.:)\]]+(?:\s|$)|\W*$)",
    re.IGNORECASE,
)
"""A letter that refers to an option: alone (`b`, `(B).`), before punctuation (`B: CT`), or in `the answer is B`."""


def reference_choice(prediction: str, options: Sequence[str]) -> int | None:
    """The option most similar to the prediction by difflib's ratio, as in run_eval and OmniMedVQA's evaluation.

    Case matters, the letter before an option does not. The first of equally similar options is chosen; `None` if no
    option has a character in common with the prediction.
    """
    ratios = [SequenceMatcher(None, option, prediction).ratio() for option in options[:REFERENCE_OPTIONS]]
    best = max(ratios, default=0.0)
    return ratios.index(best) if best > 0 else None


def strict_choice(prediction: str, options: Sequence[str]) -> int | None:
    """The option that a prediction states, by its letter, its words or both; `None` if it does not state exactly one.

    Words must be consecutive in the prediction, and an option inside another stated option (`lung` in `left lung`) does
    not count. A letter and words that refer to different options state none.
    """
    predicted, offered = strict_words(prediction), [strict_words(option) for option in options]
    if predicted and predicted in offered:
        return offered.index(predicted)
    by_words = _stated_by_words(predicted, offered)
    by_letter = _stated_by_letter(prediction, len(options))
    if by_letter is None:
        return by_words[0] if len(by_words) == 1 else None
    return by_letter if not by_words or by_letter in by_words else None


def answer_index(answer: str, options: Sequence[str]) -> int | None:
    """Index of the option that equals a reference answer, by its words, else by its letter, else `None`."""
    expected, offered = strict_words(answer), [strict_words(option) for option in options]
    if expected and expected in offered:
        return offered.index(expected)
    return _stated_by_letter(answer, len(options))


def _stated_by_letter(text: str, count: int) -> int | None:
    match = _NAMED_LETTER.match(unicodedata.normalize("NFKC", text).strip())
    if match is None:
        return None
    index = ord(match[1].upper()) - ord("A")
    return index if index < count else None


def _stated_by_words(predicted: list[str], options: list[list[str]]) -> list[int]:
    """Options whose words occur in the prediction, longest first; words used by one option do not count for others."""
    free = list(predicted)
    stated = []
    for index in sorted(range(len(options)), key=lambda index: -len(options[index])):
        if options[index] and _take(free, options[index]):
            stated.append(index)
    return stated


def _take(free: list[str], phrase: list[str]) -> bool:
    """Remove every occurrence of a phrase from a list of words; returns whether there was one."""
    width, taken = len(phrase), False
    for start in range(len(free) - width + 1):
        if free[start : start + width] == phrase:
            free[start : start + width] = [""] * width
            taken = True
    return taken
