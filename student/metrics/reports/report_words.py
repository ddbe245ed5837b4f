"""Words of a report: nltk's `word_tokenize` from a local folder of Punkt's English tables, and COCO-like words."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ....errors import InputError
from .metric_assets import PUNKT

Tokenizer = Callable[[str], list[str]]

_COCO_WORD = re.compile(r"[^\W_]+(?:[-'.,/][^\W_]+)*")


def nltk_tokenizer(folder: Path) -> Tokenizer:
    """`nltk.word_tokenize` for English: Punkt finds the sentences, Treebank rules the words in each.

    nltk itself reads tables from its own search path alone; here they come from a given folder.

    Raises:
        InputError: a table is missing or unreadable.
    """
    from nltk.tokenize import NLTKWordTokenizer
    from nltk.tokenize.punkt import PunktSentenceTokenizer

    sentences = PunktSentenceTokenizer(_read_punkt(folder))
    words = NLTKWordTokenizer()
    return lambda text: [word for sentence in sentences.tokenize(text) for word in words.tokenize(sentence)]


def _read_punkt(folder: Path) -> Any:
    """Punkt's parameters as nltk_data's `punkt_tab` writes them: one entry a line, columns parted by tabs."""
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
        raise InputError(f"{folder} is no folder of Punkt's English tables: {error}") from error
    return parameters


def coco_words(text: str) -> list[str]:
    """Lower-case words without punctuation, as COCO's captions are compared.

    COCO runs the Penn Treebank tokenizer of a Java program and drops punctuation; this keeps a word with inner
    hyphens, apostrophes, points, commas or slashes in one piece ("cardio-mediastinal", "2.5", "1/2").
    """
    return _COCO_WORD.findall(text.lower())
