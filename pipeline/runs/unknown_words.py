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
    return (
        f"{len(affected)} of {len(answers)} {kind} contain words that this student's tokenizer does not know "
        f"(first: {lacking[affected[0]]!r}): it cannot write them. Use a language model whose tokenizer covers the "
        "language of the answers"
    )


def _first_unknown(tokenizer: Any, answer: str) -> str | None:
    """The first word of an answer that becomes the unknown token."""
    if not _is_unknown(tokenizer, answer):
        return None
    return next((word for word in answer.split() if _is_unknown(tokenizer, word)), answer)


def _is_unknown(tokenizer: Any, text: str) -> bool:
    return tokenizer.unk_token_id in text_ids(tokenizer, as_text(text, tokenizer))
