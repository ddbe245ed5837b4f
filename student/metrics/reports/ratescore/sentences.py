"""Sentences of a report by RuSH's rules (Shi et al. 2016), which RaTEScore splits with.

A rule is a pattern over characters with a mark in it: `stbegin` marks where a sentence begins, `stend` where one ends.
Marks of one kind that touch exclude each other and the widest wins, so that wide rules of an odd score, which mark
nothing themselves, are exceptions ("Dr. Smith"). A sentence runs from a begin to the last end before the next begin.
"""

import re
import string
from dataclasses import dataclass
from pathlib import Path

from .....errors import InputError

SHORTEST_GAP = 5
"""Characters between sentences, or after the last, that are a sentence only if there are more."""
SHORTEST = 3
"""Characters of the shortest sentence that is read."""
_REPEATS = 51
_WILDCARDS = {
    "s": "[ \\t\\xa0]",
    "n": "[\\n\\r]",
    "d": "\\d",
    "C": "[A-ZÀ-ÖØ-Þ]",
    "c": "[a-zß-öø-ÿ]",
    "p": f"[{re.escape(string.punctuation)}]",
    "a": "\\S",
    "u": "[^\\x00-~\\xa0]",
    "w": "(?:[^\\x00-~]|\\s)",
    "b": "\\A",
    "e": "\\Z",
}


@dataclass(frozen=True, slots=True)
class _Rule:
    pattern: re.Pattern[str]
    counts: bool
    """False for a rule that only keeps narrower ones from marking."""


@dataclass(frozen=True, slots=True)
class _Mark:
    begin: int
    end: int
    counts: bool

    @property
    def width(self) -> int:
        return self.end - self.begin

    def touches(self, other: "_Mark") -> bool:
        return self.begin <= other.end and other.begin <= self.end


class SentenceRules:
    """A file of rules, `rush_rules.tsv`."""

    def __init__(self, path: Path) -> None:
        """Read the rules.

        Raises:
            InputError: no such file, or it has no rules.
        """
        try:
            lines = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
        except (OSError, ValueError) as error:
            raise InputError(f"{path} cannot be read: {error}") from error
        rules = [line for line in lines if len(line) >= 3 and not line[0].startswith(("#", "@"))]
        self._begins = _rules_of("stbegin", rules)
        self._ends = _rules_of("stend", rules)
        if not self._begins or not self._ends:
            raise InputError(f"{path} has no rules of RuSH: {len(self._begins)} of stbegin, {len(self._ends)} of stend")

    def split(self, text: str) -> list[str]:
        """Sentences, without blanks around them; every word of the text is in one, but for crumbs."""
        spans = _join(text, _marks(text, self._begins), _marks(text, self._ends))
        sentences = [text[begin:end].strip() for begin, end in _with_gaps(text, spans)]
        return [sentence for sentence in sentences if len(sentence) >= SHORTEST]


def _rules_of(kind: str, rows: list[list[str]]) -> list[_Rule]:
    return [
        _Rule(re.compile(_pattern(row[0])), counts=float(row[1]) % 2 == 0) for row in rows if row[2].strip() == kind
    ]


def _pattern(rule: str) -> str:
    """A rule as a lookahead at every place, with the marked part as group 1."""
    parts: list[str] = []
    opened = closed = False
    characters = iter(rule)
    for character in characters:
        if character == "\\":
            wildcard = next(characters, "\\")
            parts.append(_WILDCARDS.get(wildcard, re.escape(wildcard)))
        elif character == "(" and not opened:
            parts.append("(")
            opened = True
        elif character == ")" and not closed:
            parts.append(")")
            closed = True
        elif character == "+" and parts and parts[-1] not in ("(", ")"):
            parts[-1] += f"{{1,{_REPEATS}}}"
        else:
            parts.append(re.escape(character))
    inner = ("" if opened else "(") + "".join(parts) + ("" if closed else ")")
    return f"(?={inner})"


def _marks(text: str, rules: list[_Rule]) -> list[_Mark]:
    """Marks that count, by place, after touching ones have excluded each other."""
    found = [
        (match.start(), number, _Mark(*match.span(1), rule.counts))
        for number, rule in enumerate(rules)
        for match in rule.pattern.finditer(text)
    ]
    kept: list[_Mark] = []
    for _, _, mark in sorted(found, key=lambda entry: entry[:2]):
        rival = next((place for place in reversed(range(len(kept))) if kept[place].touches(mark)), None)
        if rival is None:
            kept.append(mark)
        elif mark.width > kept[rival].width:
            kept[rival] = mark
    return sorted((mark for mark in kept if mark.counts), key=lambda mark: mark.begin)


def _join(text: str, begins: list[_Mark], ends: list[_Mark]) -> list[tuple[int, int]]:
    """From each begin to the last end before the next begin."""
    stops = [len(text[: mark.begin + 1].rstrip()) for mark in ends]
    spans: list[tuple[int, int]] = []
    start: int | None = None
    for number, begin in enumerate(begins):
        if spans and begin.begin < spans[-1][1]:
            continue
        start = begin.begin if start is None else start
        following = begins[number + 1].begin if number + 1 < len(begins) else len(text) + 1
        closing = [stop for stop in stops if begin.begin < stop <= following]
        if closing:
            spans.append((start, closing[-1]))
            start = None
    return spans


def _with_gaps(text: str, spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Sentences and what lies between them: long gaps are sentences, short ones belong to the one before."""
    whole: list[tuple[int, int]] = []
    for begin, end in [*spans, (len(text), len(text))]:
        last = whole[-1][1] if whole else 0
        gap = text[last:begin].strip()
        if len(gap) > SHORTEST_GAP or (gap and not whole):
            whole.append((last, begin))
        elif gap:
            whole[-1] = (whole[-1][0], begin)
        if end > begin:
            whole.append((begin, end))
    return whole
