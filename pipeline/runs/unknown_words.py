"""Answers with words that a student's tokenizer does not know: it can neither learn nor write them."""

from collections.abc import Sequence
from typing import Any

from ...student.prompts.control_tokens import as_text, text_ids


def unknown_word_warning(tokenizer: Any, answers: Sequence[str], kind: str) -> str | None:
    """A warning if answers contain the tokenizer's unknown token; None without one, as with byte-level tokenizers.

    Args:
        tokenizer: of the student.
        answers: reference answers.
        kind: what they are, such as "training answers".
    """
    if tokenizer.unk_token_id is None:
        return None
    lacking = {answer: word for answer in set(answers) if (word := _first_unknown(tokenizer, answer)) is not None}
    affected = [answer for answer in answers if answer in lacking]
    if not affected:
        return None
    cased = [answer for answer in affected if not _is_unknown(tokenizer, answer.lower())]
    start = f"{len(affected)} of {len(answers)} {kind} contain words that this student's tokenizer"
    if len(cased) == len(affected):
        word = lacking[cased[0]]
        return f"{start} does not know (first: {word!r}), but only the case differs: {_lowercase(word)}"
    lines = [
        f"{start} does not know (first: {next(lacking[answer] for answer in affected if answer not in cased)!r}): it "
        "cannot write them. Use a language model whose tokenizer covers the language of the answers"
    ]
    if cased:
        lines.append(f"In {len(cased)} of these answers, only the case differs: {_lowercase(lacking[cased[0]])}")
    return ". ".join(lines)


def _lowercase(word: str) -> str:
    return f"the tokenizer knows {word.lower()!r}. Write the answers in lowercase; scores ignore case"


def _first_unknown(tokenizer: Any, answer: str) -> str | None:
    """The first word of an answer that becomes the unknown token, preferably in lowercase, too."""
    if not _is_unknown(tokenizer, answer):
        return None
    unknown = [word for word in answer.split() if _is_unknown(tokenizer, word)] or [answer]
    return next((word for word in unknown if _is_unknown(tokenizer, word.lower())), unknown[0])


def _is_unknown(tokenizer: Any, text: str) -> bool:
    return tokenizer.unk_token_id in text_ids(tokenizer, as_text(text, tokenizer))
