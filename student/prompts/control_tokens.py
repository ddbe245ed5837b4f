"""Text that people wrote, kept from becoming control tokens: a typed `</s>` or `<image>` stays text.

A tokenizer turns the name of an added token into its id wherever the name stands. In text from users each such name is
cut behind its first character, and the two parts are tokenized apart: every character stays, and no control token
appears. Text without such a name keeps the tokens that it always had.
"""

import re
from typing import Any

IMAGE_PLACEHOLDER = "\ufdd0"
"""A Unicode noncharacter, reserved for use inside programs: "<image>" is text that a question may contain."""
CUT = "\ufdd1"
"""Where the text around it is tokenized apart."""

_RESERVED = str.maketrans("", "", IMAGE_PLACEHOLDER + CUT)


def control_tokens(tokenizer: Any) -> list[str]:
    """Names of the tokenizer's special tokens and of added ones in brackets (`<think>`, `[INST]`)."""
    return [
        token.content
        for token in tokenizer.added_tokens_decoder.values()
        if len(token.content) > 1 and (token.special or re.fullmatch(r"<.*>|\[.*\]", token.content))
    ]


def as_text(text: str, tokenizer: Any) -> str:
    """A user's text with `CUT` inside every control token's name, and without the marks that only programs use."""
    return cut_names(text.translate(_RESERVED), control_tokens(tokenizer))


def cut_names(text: str, names: list[str]) -> str:
    """`CUT` behind the first character of each name, overlapping ones included."""
    present = [re.escape(name) for name in names if name in text]
    return re.sub(rf"(?=(?:{'|'.join(present)}))(.)", rf"\1{CUT}", text, flags=re.DOTALL) if present else text


def text_ids(tokenizer: Any, text: str, *, continued: bool = False) -> list[int]:
    """Token ids of a text with cuts; `continued`: it follows a control token, as behind an image."""
    first, *rest = text.split(CUT)
    ids = _continued_ids(tokenizer, first) if continued else _ids(tokenizer, first)
    for part in rest:
        ids += _continued_ids(tokenizer, part)
    return ids


def leading_ids(tokenizer: Any) -> list[int]:
    """What this tokenizer puts in front of every text, such as its begin-of-sequence token."""
    whole, plain = list(tokenizer("a")["input_ids"]), _ids(tokenizer, "a")
    places = range(len(whole) - len(plain) + 1)
    start = next((place for place in places if whole[place : place + len(plain)] == plain), 0)
    return whole[:start]


def _ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _continued_ids(tokenizer: Any, text: str) -> list[int]:
    """Ids of a text in the middle of another: some tokenizers put a space in front of a first text alone."""
    for number, token in tokenizer.added_tokens_decoder.items():
        if token.special and not token.rstrip:
            together = _ids(tokenizer, token.content + text)
            if together[:1] == [number]:
                return together[1:]
    return _ids(tokenizer, text)
