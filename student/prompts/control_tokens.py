"""Preventing control tokens in user text: `</s>` or `<image>` in a question remains text.

A tokenizer converts the name of an added token to its id wherever the name occurs. In user text, each such name is cut
after its first character, and the two parts are tokenized separately: all characters remain, without a control token.
Text without such a name is tokenized as usual.
"""

import re
from typing import Any

IMAGE_PLACEHOLDER = "\ufdd0"
"""A Unicode noncharacter, reserved for internal use; "<image>" is text that a question may contain."""
CUT = "\ufdd1"
"""Marks a position where text is split and the parts are tokenized separately."""

_RESERVED = str.maketrans("", "", IMAGE_PLACEHOLDER + CUT)


def control_tokens(tokenizer: Any) -> list[str]:
    """Names of the tokenizer's special tokens and of its added tokens in brackets (`<think>`, `[INST]`)."""
    return [
        token.content
        for token in tokenizer.added_tokens_decoder.values()
        if len(token.content) > 1 and (token.special or re.fullmatch(r"<.*>|\[.*\]", token.content))
    ]


def as_text(text: str, tokenizer: Any) -> str:
    """Insert `CUT` into every control token's name in user text, and remove the internal marks."""
    return cut_names(text.translate(_RESERVED), control_tokens(tokenizer))


def cut_names(text: str, names: list[str]) -> str:
    """Insert `CUT` after the first character of each name, including overlapping names."""
    present = [re.escape(name) for name in names if name in text]
    return re.sub(rf"(?=(?:{'|'.join(present)}))(.)", rf"\1{CUT}", text, flags=re.DOTALL) if present else text


def text_ids(tokenizer: Any, text: str, *, continued: bool = False) -> list[int]:
    """Token ids of a text with cuts; `continued` means that it follows a control token, such as an image."""
    first, *rest = text.split(CUT)
    ids = _continued_ids(tokenizer, first) if continued else _ids(tokenizer, first)
    for part in rest:
        ids += _continued_ids(tokenizer, part)
    return ids


def leading_ids(tokenizer: Any) -> list[int]:
    """Token ids that the tokenizer adds before every text, such as its begin-of-sequence token."""
    full, plain = list(tokenizer("a")["input_ids"]), _ids(tokenizer, "a")
    offsets = range(len(full) - len(plain) + 1)
    start = next((offset for offset in offsets if full[offset : offset + len(plain)] == plain), 0)
    return full[:start]


def _ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _continued_ids(tokenizer: Any, text: str) -> list[int]:
    """Token ids of text that continues other text; some tokenizers add a space only before the first text."""
    for number, token in tokenizer.added_tokens_decoder.items():
        if token.special and not token.rstrip:
            together = _ids(tokenizer, token.content + text)
            if together[:1] == [number]:
                return together[1:]
    return _ids(tokenizer, text)
