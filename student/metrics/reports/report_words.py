"""Splitting reports into words: nltk's `word_tokenize` with a local folder of Punkt's tables, and COCO-like words."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ....errors import InputError
from ....plain_text import quoted_error
from .metric_assets import PUNKT

Tokenizer = Callable[[str], list[str]]

_COCO_WORD = re.compile(r"[^\W_]+(?:[-'.,/][^\W_]+)*")


def nltk_tokenizer(folder: Path) -> Tokenizer:
    """`nltk.word_tokenize` for English: Punkt splits sentences, and Treebank rules split words.

    nltk reads its tables only from its search path; here they are read from a given folder.

    Raises:
        InputError: a table is missing or unreadable.
    """
    from nltk.tokenize import NLTKWordTokenizer
    from nltk.tokenize.punkt import PunktSentenceTokenizer

    sentences = PunktSentenceTokenizer(_read_punkt(folder))
    words = NLTKWordTokenizer()
    return lambda text: [word for sentence in sentences.tokenize(text) for word in words.tokenize(sentence)]


def _read_punkt(folder: Path) -> Any:
    """Read Punkt's parameters in the format of nltk_data's `punkt_tab`: one entry per line, tab-separated columns."""
    from nltk.tokenize.punkt import PunktParameters

    parameters: Any = PunktParameters()
    try:
        abbreviations, collocations, contexts, starters = (
            [line for line in (folder / name).read_text(encoding="utf-8").splitlines() if line] for name in PUNKT.files
        )
        parameters.abbrev_types = set(abbreviations)
        parameters.sent_starters = set(starters)
        parameters.collocations = {(first, second) for first, second in (line.split("\t") for line in collocations)}
        for word, context in (line.split("\t") for line in contexts):
            parameters.ortho_context[word] = int(context)
    except (OSError, ValueError) as error:
        raise InputError(f"{folder} does not contain Punkt's English tables: {quoted_error(error)}") from error
    return parameters


def coco_words(text: str) -> list[str]:
    """Lowercase words without punctuation, as for COCO captions.

    COCO uses the Penn Treebank tokenizer of a Java program and removes punctuation; here, words with inner hyphens,
    apostrophes, periods, commas or slashes are not split ("cardio-mediastinal", "2.5", "1/2").
    """
    return _COCO_WORD.findall(text.lower())
