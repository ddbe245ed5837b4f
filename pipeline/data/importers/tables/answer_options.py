"""Parse the options of multiple-choice questions: lists, objects, lettered text, one column each."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .....plain_text import kind_of
from ..records import text
from .notations import UnclearValue, parse_structure, starts_with_quoted_item

LETTERS = "ABCDEFGH"
_LETTERED = re.compile(r"(?:^|[,;|]?\s+|[,;|])\(?([A-H])[.:)]")
_ANSWER = re.compile(r"^\(?([A-H])\)?[.:)]?(?:\s+(.*))?$", re.DOTALL)
_KEY = re.compile(r"^(?:option|choice)?[\s_-]*([A-Za-z])$", re.IGNORECASE)
_OWN_LETTER = re.compile(r"^\(?([A-H])[.:)]\s*")
_SEPARATORS = ("|", ";")
_PAIR = {"key", "value"}
"""Fields of an entry if options are a list of entries with letters."""


@dataclass(frozen=True, slots=True)
class Options:
    """The options of a question and their letters. An empty option keeps its letter."""

    texts: tuple[str, ...]
    """The non-empty options, in the order of their letters."""
    by_letter: Mapping[str, str | None]
    """`None` for an empty option."""
    unclear: str | None = None
    """Why a letter alone does not identify an option."""

    @classmethod
    def listed(cls, items: Sequence[str | None]) -> "Options":
        """Options in order; if each begins with a letter (`B. no`), that letter counts and not its position."""
        by_place: dict[str, str | None] = dict(zip(LETTERS, items, strict=False))
        texts = tuple(item for item in items if item)
        own = [found[1] for found in map(_OWN_LETTER.match, texts) if found]
        if not own:
            return cls(texts, by_place)
        if len(own) < len(texts):
            return cls(texts, by_place, "only some of the options begin with letters")
        if len(set(own)) < len(own):
            return cls(texts, by_place, "two of the options begin with the same letter")
        by_letter: dict[str, str | None] = dict(sorted(zip(own, texts, strict=True)))
        if "".join(by_letter) != LETTERS[: len(own)]:  # species names look like this too
            return cls(texts, {letter: None for letter, item in by_place.items() if not item} | by_letter)
        return cls.lettered({letter: _without_letter(option or "") for letter, option in by_letter.items()})

    @classmethod
    def lettered(cls, entries: Mapping[str, str | None]) -> "Options":
        """Options by their letters, as columns and objects give them."""
        entries = dict(sorted(entries.items()))
        own = {letter: found[1] for letter, option in entries.items() if (found := _OWN_LETTER.match(option or ""))}
        there = [letter for letter, option in entries.items() if option]
        other = next((letter for letter, stated in own.items() if letter != stated), None)
        unclear = None
        if there and len(own) == len(there):
            if other is None:
                entries = {letter: _without_letter(option or "") or None for letter, option in entries.items()}
            elif len(set(own.values())) == len(own) and set(own.values()) <= entries.keys():
                unclear = f"option {other} begins with {own[other]}"
        return cls(tuple(option for option in entries.values() if option), entries, unclear)

    def chosen(self, answer: str) -> str:
        """The option that an answer identifies by its letter (`B`, `B. Pneumonia`), else the answer unchanged.

        Raises:
            UnclearValue: It is the letter of an empty option, or ambiguous.
        """
        if answer in self.texts:
            return answer
        found = _ANSWER.match(answer.strip())
        if found is None or found[1] not in self.by_letter:
            return answer
        option, rest = self.by_letter[found[1]], _folded(found[2] or "")
        if not rest and self.unclear:
            raise UnclearValue(f"the answer {answer!r} is a letter, but {self.unclear}: write the answer in words")
        if not rest and not option:
            raise UnclearValue(f"the answer {answer!r} refers to an empty option")
        return option if option and rest in ("", _folded(option), _folded(_without_letter(option))) else answer


def _folded(option: str) -> str:
    return option.strip().casefold().rstrip(".")


def _without_letter(option: str) -> str:
    return _OWN_LETTER.sub("", option).strip()


def read_options(value: object, column: str) -> Options:
    """The options of a cell in any notation.

    Raises:
        UnclearValue: It is not a list of texts, or is an object whose keys are not letters.
    """
    if isinstance(value, str) and (value.lstrip().startswith(("[", "{")) or starts_with_quoted_item(value.strip())):
        value = parse_structure(value.strip())
    if isinstance(value, dict):
        return Options.lettered(_by_letter(value.items(), column))
    if isinstance(value, list | tuple):
        if value and all(isinstance(item, tuple) and len(item) == 2 for item in value):  # a map of Parquet
            return Options.lettered(_by_letter(value, column))
        if value and all(isinstance(item, dict) and item.keys() == _PAIR for item in value):
            return Options.lettered(_by_letter([(item["key"], item["value"]) for item in value], column))
        return Options.listed([_option_text(item, column) for item in value])
    written = text(value)
    return Options.listed([text(option) for option in split_options(written)] if written else [])


def _by_letter(entries: Iterable[tuple[object, object]], column: str) -> dict[str, str | None]:
    by_letter: dict[str, str | None] = {}
    for key, value in entries:
        found = _KEY.match(str(key).strip())
        if found is None:
            raise UnclearValue(
                f"{column} has the key {str(key)!r}; expected the letters of the options: A, B and so on"
            )
        letter = found[1].upper()
        if letter in by_letter:
            raise UnclearValue(f"{column} has two entries for {letter}")
        by_letter[letter] = _option_text(value, column)
    return by_letter


def _option_text(value: object, column: str) -> str | None:
    if isinstance(value, list | dict | tuple):
        raise UnclearValue(f"{column} has {kind_of(value)} instead of an option")
    return text(value)


def split_options(written: str) -> tuple[str, ...]:
    """`A. a, B. b`, `A. a B. b`, `a | b`, `a; b` or `A, B` as options; a single option is not a list."""
    starts = _lettered(written)
    if len(starts) > 1:
        ends = [found.start() for found in starts[1:]] + [len(written)]
        return tuple(written[found.end() : end].strip() for found, end in zip(starts, ends, strict=True))
    letters = tuple(part.strip() for part in written.split(","))
    if len(letters) > 1 and letters == tuple(LETTERS[: len(letters)]):  # the question explains them
        return letters
    separator = next((mark for mark in _SEPARATORS if mark in written), None)
    return tuple(part.strip() for part in written.split(separator)) if separator else (written,)


def _lettered(written: str) -> list[re.Match[str]]:
    """The positions of `A.`, then `B.`, then `C.`; a letter out of order is part of an option."""
    starts: list[re.Match[str]] = []
    for found in _LETTERED.finditer(written):
        if len(starts) < len(LETTERS) and found[1] == LETTERS[len(starts)] and (starts or found.start() == 0):
            starts.append(found)
    return starts
