"""Splitting reports into words: nltk's `word_tokenize` with a local folder of Punkt's tables, and COCO-like words."""

import re
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ....errors import InputError
from ....plain_text import quoted_error
from .metric_assets import PUNKT

Tokenizer = Callable[[str], list[str]]

_COCO_WORD = re.compile(r"[^\W_]+(?:[-'.,/][^\W_]+)*")


def nltk_tokenizer(folder: Path) -> Tokenizer:
    """`nltk.word_tokenize` for English: Punkt splits sentences, and Treebank rules split words.

    nltk opens its tables only in its search path, which is global; here they are read from a given folder.

    Raises:
        InputError: a table is missing or unreadable.
    """
    from nltk.tokenize import NLTKWordTokenizer
    from nltk.tokenize.punkt import PunktSentenceTokenizer

    sentences = PunktSentenceTokenizer(_read_punkt(folder))
    words = NLTKWordTokenizer()
    return lambda text: [word for sentence in sentences.tokenize(text) for word in words.tokenize(sentence)]


def _read_punkt(folder: Path) -> Any:
    """Read Punkt's parameters with nltk's decoder of nltk_data's `punkt_tab`, which is text, not a pickle."""
    from nltk.tabdata import PunktDecoder
    from nltk.tokenize.punkt import PunktParameters

    parameters, decoder = PunktParameters(), PunktDecoder()
    try:
        with ExitStack() as stack:
            abbreviations, collocations, contexts, starters = (
                stack.enter_context((folder / name).open(encoding="utf-8")) for name in PUNKT.files
            )
            parameters.abbrev_types = decoder.txt2set(abbreviations)
            parameters.sent_starters = decoder.txt2set(starters)
            parameters.collocations = {(first, second) for first, second in decoder.tab2tups(collocations)}
            parameters.ortho_context = decoder.tab2intdict(contexts)
    except (OSError, ValueError) as error:
        raise InputError(f"{folder} does not contain Punkt's English tables: {quoted_error(error)}") from error
    return parameters


def coco_words(text: str) -> list[str]:
    """Lowercase words without punctuation, as for COCO captions.

    COCO uses the Penn Treebank tokenizer of a Java program and removes punctuation; here, words with inner hyphens,
    apostrophes, periods, commas or slashes are not split ("cardio-mediastinal", "2.5", "1/2").
    """
    return _COCO_WORD.findall(text.lower())
