"""Splitting answers into words: `reference_words` as in LLaVA-Med's run_eval, `strict_words` as a reader would.

docs/metrics.md explains the differences.
"""

import re
import unicodedata

NUMBER_WORDS = {
    "zero": "0",
    "one": "1",
    "two": "2",
    "three": "3",
    "four": "4",
    "five": "5",
    "six": "6",
    "seven": "7",
    "eight": "8",
    "nine": "9",
    "ten": "10",
}
ARTICLES = frozenset({"a", "an", "the"})

_REFERENCE_NUMBERS = {**NUMBER_WORDS, "none": "0"}
_REFERENCE_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
_PERIOD_BEFORE_NO_DIGIT = re.compile(r"\.(?!\d)")
_PERIODS_REMOVED_AT_MOST = 32
"""run_eval passes `re.UNICODE` (32) to `re.sub` as the count."""

_CONTRACTED = {
    "n't": "ai are ca could did does do had has have is might must need ought sha should was were wo would",
    "n't've": "could had might should would",
    "'ve": "could might must not should they we what where who would you",
    "'d": "he how it someone something there they where who you",
    "'d've": "he it she somebody someone something there they we who y'all you",
    "'s": "he how somebody someone that there what when where who why",
    "'ll": "how it somebody someone something they what who why y'all you",
    "'re": "there they what why you",
    "": "ma'am o'clock 'ow's'at 'twas y'all",
}
"""Contractions in run_eval, by ending. It restores one missing apostrophe: couldnt've -> couldn't've."""


def _restored_apostrophes() -> dict[str, str]:
    full = [stem + ending for ending, stems in _CONTRACTED.items() for stem in stems.split()]
    restored = {
        word[:index] + word[index + 1 :]: word for word in full for index, letter in enumerate(word) if letter == "'"
    }
    # The only entry of the table that removes an apostrophe.
    return {**restored, "somebody'd": "somebodyd"}


_CONTRACTIONS = _restored_apostrophes()


def reference_text(text: str) -> str:
    """Normalize lowercase text once, like LLaVA-Med's `normalize_word`.

    Whether a punctuation mark is removed or replaced by a space depends on the full text: it is removed everywhere if
    it is next to a space anywhere, or if there is a comma inside a number anywhere.
    """
    glue_all = _COMMA_IN_NUMBER.search(text) is not None
    replacements: dict[str, str | int | None] = {
        mark: "" if glue_all or f"{mark} " in text or f" {mark}" in text else " " for mark in _REFERENCE_PUNCTUATION
    }
    text = text.translate(str.maketrans(replacements))
    text = _PERIOD_BEFORE_NO_DIGIT.sub("", text, count=_PERIODS_REMOVED_AT_MOST)
    words = (_REFERENCE_NUMBERS.get(word, word) for word in text.lower().split())
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def reference_words(text: str) -> list[str]:
    """The words that run_eval counts: normalized twice, because both its caller and its score do so."""
    return reference_text(reference_text(text.lower())).lower().split()


UNSPACED = "\u3005\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
"""Characters of scripts without spaces between words (Chinese and Japanese), as a regular expression class."""

_UNSPACED_CHARACTER = re.compile(f"[{UNSPACED}]")
_STRICT_WORD = re.compile(rf"[{UNSPACED}]|[^\W_{UNSPACED}]+(?:(?:(?<=\d)\.(?=\d)|'(?=[^\W\d_]))[^\W_{UNSPACED}]+)*")
_STRICT_COMMA_IN_NUMBER = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")


def strict_words(text: str) -> list[str]:
    """Words of a text: NFKC-normalized, lowercase, split at punctuation, without articles.

    Each Chinese or Japanese character is a word, because there are no spaces between words.

    Decimal numbers are one word, thousands separators and apostrophes are removed (`don't` = `dont`), and number words
    up to ten become digits. A text that contains only articles keeps them (an answer may be "A").
    """
    folded = unicodedata.normalize("NFKC", text).casefold().replace("\u2019", "'")
    folded = _STRICT_COMMA_IN_NUMBER.sub("", folded)
    words = [word.replace("'", "") for word in _STRICT_WORD.findall(folded)]
    kept = [word for word in words if word not in ARTICLES] or words
    return [NUMBER_WORDS.get(word, word) for word in kept]


def is_unspaced(text: str) -> bool:
    """Whether a text contains Chinese or Japanese, so that words are not separated by spaces."""
    return _UNSPACED_CHARACTER.search(text) is not None


def contains_phrase(words: list[str], phrase: list[str]) -> bool:
    """Whether `phrase` (not empty) occurs in `words` as consecutive words."""
    width = len(phrase)
    return any(words[start : start + width] == phrase for start in range(len(words) - width + 1))
