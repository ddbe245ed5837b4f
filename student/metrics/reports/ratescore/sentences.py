"""Sentence splitting with RuSH's rules (Shi et al. 2016), as in RaTEScore.

A rule is a character pattern that contains a mark: `stbegin` for the beginning of a sentence, `stend` for its end. Of
overlapping marks of one kind, only the widest counts. Rules with an odd score mark nothing, so wide ones are exceptions
("Dr. Smith"). A sentence extends from a beginning to the last end before the next beginning.
"""

import re
import string
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path

from .....errors import InputError

# From the first visible character to the last character that can end a sentence.
_GAP = re.compile(r"""\S.*(?:[^\W_]|[.!?)\]"])""", re.DOTALL)
SHORTEST_GAP = 5
"""Text between sentences, or after the last, is a sentence if it has more characters than this."""
SHORTEST = 3
"""Minimum number of characters of a sentence."""
_REPEATS = 51
_WILDCARDS = {
    "s": "[ \\t\\xa0]",
    "n": "[\\n\\r]",
    "p": f"[{re.escape(string.punctuation)}]",
    "a": "\\S",
    "u": "[^\\x00-~\\xa0]",
    "w": "(?:[^\\x00-~]|\\s)",
    "b": "\\A",
    "e": "\\Z",
}
_CASES: dict[str, Callable[[str], bool]] = {"d": str.isdigit, "C": str.isupper, "c": str.islower}
"""Wildcards that PyFastNER (commit c9ef88c), RuSH's matcher, checks with these functions: "µ" and "ſ" are letters."""


@dataclass(frozen=True, slots=True)
class _Rule:
    pattern: re.Pattern[str]
    counts: bool
    """False for a rule that only suppresses narrower marks."""


@dataclass(frozen=True, slots=True)
class _Mark:
    begin: int
    end: int
    counts: bool

    @property
    def width(self) -> int:
        return self.end - self.begin


class SentenceRules:
    """The rules in a file `rush_rules.tsv`."""

    def __init__(self, path: Path) -> None:
        """Read the rules.

        Raises:
            InputError: the file does not exist, or has no rules.
        """
        try:
            lines = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
        except (OSError, ValueError) as error:
            raise InputError(f"{path} cannot be read: {error}") from error
        rules = [line for line in lines if len(line) >= 3 and not line[0].startswith(("#", "@"))]
        self._begins = _rules_of("stbegin", rules)
        self._ends = _rules_of("stend", rules)
        if not self._begins or not self._ends:
            raise InputError(
                f"{path} needs RuSH rules of both kinds: stbegin {len(self._begins)}, stend {len(self._ends)}"
            )

    def split(self, text: str) -> list[str]:
        """Split text into stripped sentences, which contain all words except in very short fragments."""
        spans = _join(text, _marks(text, self._begins), _marks(text, self._ends))
        sentences = [text[begin:end].strip() for begin, end in spans]
        return [sentence for sentence in sentences if len(sentence) >= SHORTEST]


def _rules_of(kind: str, rows: list[list[str]]) -> list[_Rule]:
    return [
        _Rule(re.compile(_pattern(row[0])), counts=float(row[1]) % 2 == 0)
        for row in rows
        if row[2].strip() == kind and ")\\e" not in row[0]
    ]


@cache
def _class_of(wildcard: str) -> str:
    """Regular expression class of the characters for which one of `_CASES` is true."""
    matching = [number for number in range(sys.maxunicode + 1) if _CASES[wildcard](chr(number))]
    runs = groupby(enumerate(matching), key=lambda entry: entry[1] - entry[0])
    spans = [[number for _, number in run] for _, run in runs]
    return "[" + "".join(f"\\U{span[0]:08x}-\\U{span[-1]:08x}" for span in spans) + "]"


def _pattern(rule: str) -> str:
    """Convert a rule to a lookahead that matches at every position, with the marked part as group 1."""
    parts: list[str] = []
    opened = closed = False
    characters = iter(rule)
    for character in characters:
        if character == "\\":
            wildcard = next(characters, "\\")
            parts.append(_class_of(wildcard) if wildcard in _CASES else _WILDCARDS.get(wildcard, re.escape(wildcard)))
        elif character == "(" and not opened:
            parts.append("(")
            opened = True
        elif character == ")" and not closed:
            parts.append(")")
            closed = True
        elif character == "+" and parts and parts[-1] not in ("(", ")"):
            parts[-1] = f"(?:{parts[-1]}{{1,{_REPEATS}}}+|{parts[-1]})"  # all of a run or one character
        else:
            parts.append(re.escape(character))
    inner = ("" if opened else "(") + "".join(parts) + ("" if closed else ")")
    return f"(?={inner})"


def _marks(text: str, rules: list[_Rule]) -> list[_Mark]:
    """Find the marks that count, in order, after resolving overlaps."""
    found = [
        (match.start(), number, _Mark(*match.span(1), rule.counts))
        for number, rule in enumerate(rules)
        for match in rule.pattern.finditer(text)
    ]
    kept: list[_Mark] = []
    taken: list[tuple[int, int, int]] = []  # begin and end that a mark took, and its place; never given back
    for _, _, mark in sorted(found, key=lambda entry: entry[:2]):
        rival = next((place for first, last, place in reversed(taken) if first < mark.end and mark.begin < last), None)
        if rival is None:
            taken.append((mark.begin, mark.end, len(kept)))
            kept.append(mark)
        elif mark.width > kept[rival].width:
            taken.append((mark.begin, mark.end, rival))
            kept[rival] = mark
    return sorted((mark for mark in kept if mark.counts), key=lambda mark: mark.begin)


def _join(text: str, begins: list[_Mark], ends: list[_Mark]) -> list[tuple[int, int]]:
    """Join each beginning with the last end before the next beginning, and handle text in between with `_fill`.

    As in RuSH, a sentence that extends past its first end also includes the last end of the text.
    """
    spans: list[tuple[int, int]] = []
    start: int | None = None
    stop, first = 0, 0
    for number, begin in enumerate(begins):
        if begin.begin < stop:
            continue
        opened = start = begin.begin if start is None else start
        _fill(spans, text, opened)
        following = begins[number + 1].begin if number + 1 < len(begins) else None
        for place in range(first, len(ends)):
            later = ends[place + 1].end if place + 1 < len(ends) else None
            if following is not None and later is not None and following <= ends[place].begin:
                break
            first, stop = place, len(text[: ends[place].begin + 1].rstrip())
            if stop < opened:
                continue
            if start is None:
                spans[-1] = (opened, stop)
                continue
            spans.append((opened, stop))
            start = None
            if following is not None and (later is None or following <= later):
                break
    _fill(spans, text, len(text))
    return spans


def _fill(spans: list[tuple[int, int]], text: str, end: int) -> None:
    """Add the text between the last sentence and `end`, as a sentence if it is long or first, else to the last one."""
    gap = _GAP.search(text, spans[-1][1] if spans else 0, end)
    if gap is None:
        return
    if not spans or len(gap[0]) > SHORTEST_GAP:
        spans.append(gap.span())
    else:
        spans[-1] = (spans[-1][0], gap.end())
