"""Synonyms from a local folder of WordNet 3.0's database files, for nltk's METEOR.

nltk reads WordNet only from its search path and loads parts that METEOR does not need. This module reads the same files
(wndb(5), morphy(7)) and gives the same results as nltk's `synsets`.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ....errors import InputError
from ....plain_text import quoted_error

PARTS = ("noun", "verb", "adj", "adv")

# Endings that morphy(7) replaces, by part of speech.
_ENDINGS: dict[str, tuple[tuple[str, str], ...]] = {
    "noun": (
        ("s", ""),
        ("ses", "s"),
        ("ves", "f"),
        ("xes", "x"),
        ("zes", "z"),
        ("ches", "ch"),
        ("shes", "sh"),
        ("men", "man"),
        ("ies", "y"),
    ),
    "verb": (("s", ""), ("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", "")),
    "adj": (("er", ""), ("est", ""), ("er", "e"), ("est", "e")),
    "adv": (),
}


@dataclass(frozen=True, slots=True)
class Lemma:
    """One word of a synset."""

    word: str

    def name(self) -> str:
        return self.word


@dataclass(frozen=True, slots=True)
class Synset:
    """Words with one meaning."""

    words: tuple[str, ...]

    def lemmas(self) -> list[Lemma]:
        return [Lemma(word) for word in self.words]


class Synonyms:
    """WordNet for nltk's METEOR: the synsets of a word in any of its inflected forms."""

    def __init__(self, folder: Path) -> None:
        """Read the indices.

        Raises:
            InputError: a file is missing or is not a WordNet file.
        """
        try:
            self._data = {part: (folder / f"data.{part}").read_bytes() for part in PARTS}
            self._index = {part: _read_index(folder / f"index.{part}") for part in PARTS}
            self._exceptions = {part: _read_exceptions(folder / f"{part}.exc") for part in PARTS}
        except (OSError, ValueError, IndexError) as error:
            raise InputError(f"{folder} does not contain WordNet's database files: {quoted_error(error)}") from error
        self.synsets = cache(self._synsets)  # words are repeated in reports

    def _synsets(self, word: str) -> tuple[Synset, ...]:
        return tuple(
            Synset(self._words(part, offset))
            for part in PARTS
            for form in self._forms(word.lower(), part)
            for offset in self._index[part][form]
        )

    def _forms(self, word: str, part: str) -> list[str]:
        """The word and its base forms that are in WordNet, each once."""
        bases = self._exceptions[part].get(word)
        if bases is None:
            endings = [(old, new) for old, new in _ENDINGS[part] if word.endswith(old)]
            bases = [word[: -len(old)] + new for old, new in endings]
        return [form for form in dict.fromkeys([word, *bases]) if form in self._index[part]]

    def _words(self, part: str, offset: int) -> tuple[str, ...]:
        """A data line: offset, file, type, number of words in hexadecimal, then words and their ids in turn."""
        data = self._data[part]
        fields = data[offset : data.index(b"\n", offset)].decode().split(" ")
        words = fields[4 : 4 + 2 * int(fields[3], 16) : 2]
        return tuple(word.partition("(")[0] for word in words)  # an adjective's position, as in "galore(ip)"


def _read_index(path: Path) -> dict[str, list[int]]:
    """An index line: lemma, part, number of synsets, number of pointer kinds, these, two counts, then offsets."""
    index: dict[str, list[int]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith(" "):  # the license text is indented
            fields = line.split()
            index[fields[0]] = [int(offset) for offset in fields[len(fields) - int(fields[2]) :]]
    return index


def _read_exceptions(path: Path) -> dict[str, list[str]]:
    """Irregular forms, each followed by its base forms."""
    lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
    return {word: bases for word, *bases in lines}
