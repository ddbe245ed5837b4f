"""Which of the offered options a prediction chooses, in two readings (docs/metrics.md)."""

import re
import unicodedata
from collections.abc import Sequence
from difflib import SequenceMatcher

from .answer_words import strict_words

REFERENCE_OPTIONS = 4
"""The paper's run_eval reads option_A to option_D and no further."""

_NAMED_LETTER = re.compile(
    r"\W*(?:(?:the\s+)?(?:correct\s+|best\s+)?(?:answer|option|choice)(?:\s+is)?\W*)*\(?([A-Za-z])(?:[.:)\]]+(?:\s|$)|\W*$)",
    re.IGNORECASE,
)
"""A letter that names an option: alone (`b`, `(B).`), or before a mark (`B: CT`), or `the answer is B`."""


def reference_choice(prediction: str, options: Sequence[str]) -> int | None:
    """The option most like the whole prediction by difflib's ratio, as run_eval and OmniMedVQA's evaluation choose it.

    Case counts, the letter before an option does not; the first of equals wins, and `None` where no option shares a
    letter with the prediction.
    """
    ratios = [SequenceMatcher(None, option, prediction).ratio() for option in options[:REFERENCE_OPTIONS]]
    best = max(ratios, default=0.0)
    return ratios.index(best) if best > 0 else None


def strict_choice(prediction: str, options: Sequence[str]) -> int | None:
    """The one option that a prediction states, by its letter, its words or both; `None` where it commits to none.

    Words count where they stand side by side in the prediction, and an option inside another one that is stated
    (`lung` in `left lung`) does not. A letter and words that point to different options state none.
    """
    said, offered = strict_words(prediction), [strict_words(option) for option in options]
    if said and said in offered:
        return offered.index(said)
    by_words = _stated_by_words(said, offered)
    by_letter = _stated_by_letter(prediction, len(options))
    if by_letter is None:
        return by_words[0] if len(by_words) == 1 else None
    return by_letter if not by_words or by_letter in by_words else None


def answer_index(answer: str, options: Sequence[str]) -> int | None:
    """The option that a reference answer is: the one with its words, else the one with its letter, else `None`."""
    expected, offered = strict_words(answer), [strict_words(option) for option in options]
    if expected and expected in offered:
        return offered.index(expected)
    return _stated_by_letter(answer, len(options))


def _stated_by_letter(text: str, count: int) -> int | None:
    found = _NAMED_LETTER.match(unicodedata.normalize("NFKC", text).strip())
    if found is None:
        return None
    index = ord(found[1].upper()) - ord("A")
    return index if index < count else None


def _stated_by_words(said: list[str], options: list[list[str]]) -> list[int]:
    """Options whose words stand in the prediction, longest first: words that one option takes count for no other."""
    free = list(said)
    stated = []
    for index in sorted(range(len(options)), key=lambda index: -len(options[index])):
        if options[index] and _take(free, options[index]):
            stated.append(index)
    return stated


def _take(free: list[str], phrase: list[str]) -> bool:
    """Blank every occurrence of a phrase in a list of words; whether there was one."""
    width, taken = len(phrase), False
    for start in range(len(free) - width + 1):
        if free[start : start + width] == phrase:
            free[start : start + width] = [""] * width
            taken = True
    return taken
