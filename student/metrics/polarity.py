"""Whether an answer means yes or no, in English or Chinese (docs/metrics.md).

Chinese affirms or denies with the question's verb (有 and 没有, 是 and 不是), and words are not separated by spaces.
"""

import re
import unicodedata
from typing import Literal

from .answer_words import strict_words

Polarity = Literal["yes", "no"]

_YES = frozenset({"是", "是的", "对", "对的", "有", "有的", "存在", "包含", "正确", "能", "可以", "会"})
_NO = frozenset(
    {"否", "不", "不是", "不是的", "没有", "没", "无", "不对", "不存在", "不包含", "错误"}
    | {"不正确", "不能", "不可以", "不会"}
)
_BORDER = re.compile(r"[\W_]+")
_UNDECIDED = re.compile("是否|是不是|有没有|有无|能否|不(?:确定|清楚|知道|明确)|无法")
"""Whether, unclear, impossible to say: a clause that contains one means neither yes nor no."""
_DENIES = re.compile("不|没|无|否|未|并非")
_AFFIRMS = re.compile("是|有|存在|包含|正确")


def answer_polarity(answer: str) -> Polarity | None:
    """Polarity of a reference answer: its first English word, or its Chinese up to the first punctuation mark."""
    words = strict_words(answer)
    if words and words[0] in ("yes", "no"):
        return "yes" if words[0] == "yes" else "no"
    return _known(answer)


def is_yes_or_no(answer: str) -> bool:
    """Whether an answer is only yes or no, except for punctuation."""
    parts = [part for part in _BORDER.split(unicodedata.normalize("NFKC", answer).casefold()) if part]
    return len(parts) == 1 and (parts[0] in ("yes", "no") or _known(answer) is not None)


def stated_polarity(prediction: str) -> Polarity | None:
    """Polarity of a prediction: its first English yes or no, else its Chinese.

    In Chinese, the first phrase decides if it is a yes or a no by itself. Otherwise any denial means no, because a
    sentence that denies often also contains an affirming verb ("this is a CT, there is no mass").
    """
    word = next((word for word in strict_words(prediction) if word in ("yes", "no")), None)
    if word is not None:
        return "yes" if word == "yes" else "no"
    known = _known(prediction)
    if known is not None:
        return known
    clauses = _BORDER.split(unicodedata.normalize("NFKC", prediction))
    text = " ".join(clause for clause in clauses if not _UNDECIDED.search(clause))
    if _DENIES.search(text):
        return "no"
    return "yes" if _AFFIRMS.search(text) else None


def _known(text: str) -> Polarity | None:
    first = next((part for part in _BORDER.split(unicodedata.normalize("NFKC", text)) if part), "")
    return "yes" if first in _YES else "no" if first in _NO else None
