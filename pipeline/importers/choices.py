"""Options of multiple-choice questions as data sets write them: lists, lettered text, one column each."""

import json
import re
from collections.abc import Sequence

LETTERS = "ABCDEFGH"
_LETTERED = re.compile(r"(?:^|[,;|]?\s+|[,;|])\(?([A-H])[.:)]")
_ANSWER = re.compile(r"^\(?([A-H])\)?[.:)]?(?:\s+(.*))?$", re.DOTALL)
_OWN_LETTER = re.compile(r"\(?([A-H])[.:)]\s*\S")
_SEPARATORS = ("|", ";")


def split_options(written: str) -> tuple[str, ...]:
    """`["a", "b"]`, `A. a, B. b`, `A. a B. b`, `a | b`, `a; b` or `A, B` as options; one option alone is no list."""
    if written.startswith("["):
        try:
            listed = json.loads(written)
        except (ValueError, RecursionError):
            listed = []
        if all(isinstance(option, str | int | float) for option in listed) and listed:
            return tuple(str(option).strip() for option in listed)
    starts = _lettered(written)
    if len(starts) > 1:
        ends = [found.start() for found in starts[1:]] + [len(written)]
        return tuple(written[found.end() : end].strip() for found, end in zip(starts, ends, strict=True))
    letters = tuple(part.strip() for part in written.split(","))
    if len(letters) > 1 and letters == tuple(LETTERS[: len(letters)]):  # the question itself says what they mean
        return letters
    separator = next((mark for mark in _SEPARATORS if mark in written), None)
    return tuple(part.strip() for part in written.split(separator)) if separator else (written,)


def _lettered(written: str) -> list[re.Match[str]]:
    """Where `A.`, then `B.`, then `C.` begin; a letter out of this order is part of an option."""
    starts: list[re.Match[str]] = []
    for found in _LETTERED.finditer(written):
        if len(starts) < len(LETTERS) and found[1] == LETTERS[len(starts)] and (starts or found.start() == 0):
            starts.append(found)
    return starts


def chosen_option(answer: str, options: Sequence[str | None]) -> str | None:
    """The option that an answer names by its letter (`B`, `B. Pneumonia`), else the answer as it is.

    Letters count every place, also of empty options (`None`), unless the options bring their own. `None` where a
    letter alone names an empty option, or where only some options have letters, or the same, and not in order.
    """
    if answer in options:
        return answer
    found = _ANSWER.match(answer.strip())
    if found is None:
        return answer
    letter, rest = found[1], (found[2] or "").strip().casefold().rstrip(".")
    own = [_OWN_LETTER.match(option or "") for option in options]
    stated = [mark[1] for mark in own if mark]
    if not stated or stated == list(LETTERS[: len(options)]):
        place = LETTERS.index(letter)
    elif len(stated) < len(options) or len(set(stated)) < len(stated):
        return answer if rest else None
    else:
        place = stated.index(letter) if letter in stated else len(options)
    if place >= len(options):
        return answer
    option = options[place]
    if not rest:
        return option
    return option if option is not None and option.casefold().rstrip(".") == rest else answer
