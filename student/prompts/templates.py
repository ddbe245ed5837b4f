"""Prompt templates: how a question becomes the text that a student was taught to answer.

A template is a pure function from turns to text; a placeholder marks where the image's tokens go. The text ends where
the answer begins, so the label boundary is exact by construction. What people wrote never becomes a control token.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, Literal

from ...errors import SettingsError
from .chat_template import render_chat
from .control_tokens import IMAGE_PLACEHOLDER, as_text

Turn = tuple[str, str]
"""An earlier question and its answer."""


TemplateOrigin = Literal["option", "adapter", "record", "folder", "family", "guess"]
"""How a student's template is known: it was set, its adapter was trained with it, the record beside the weights or the
folder's chat template says so, the original project uses it; or it is a guess."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt:
    """Text up to the answer, and how the answer continues it."""

    text: str
    answer_prefix: str
    """Goes between the prompt and the answer, for example one space."""
    add_special_tokens: bool
    """Whether the tokenizer adds its own begin-of-sequence token (False where the text has it already)."""
    answer_end: str = ""
    """What ends an answer, its last token included; "": the tokenizer's end-of-sequence token."""
    joint: bool = False
    """Whether text behind an image is tokenized as the middle of a text, as processors do, or by itself."""


TemplateFunction = Callable[[Any, Sequence[Turn], str, int], Prompt]
"""(tokenizer, earlier turns, question, number of images) to a prompt. Images stand in the first turn."""

TEMPLATES: dict[str, TemplateFunction] = {}


def _template(function: TemplateFunction) -> TemplateFunction:
    """List a template by its name; what people wrote is marked as text before it gets there."""

    @wraps(function)
    def cleaned(tokenizer: Any, history: Sequence[Turn], question: str, images: int) -> Prompt:
        turns = [(as_text(asked, tokenizer), as_text(answered, tokenizer)) for asked, answered in history]
        return function(tokenizer, turns, as_text(question, tokenizer), images)

    TEMPLATES[function.__name__] = cleaned
    return cleaned


def _with_images(question: str, images: int) -> str:
    return f"{IMAGE_PLACEHOLDER}\n" * images + question


def _asked(history: Sequence[Turn], question: str, images: int) -> list[str]:
    """Everything the user said, trimmed as the original projects do, images in front of the first."""
    asked = [text.strip() for text in (*(turn[0] for turn in history), question)]
    return [_with_images(asked[0], images), *asked[1:]]


def _answer_prefix(tokenizer: Any, end: str) -> str:
    """What goes before an answer so that the prompt's end and the answer give, apart, the tokens they give together.

    One space; nothing where the tokenizer puts a space in front of every text itself.
    """

    def ids(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    together = ids(f"{end} yes")
    return next((prefix for prefix in (" ", "") if ids(end) + ids(f"{prefix}yes") == together), " ")


@_template
def plain(tokenizer: Any, history: Sequence[Turn], question: str, images: int) -> Prompt:
    """`Question: ...` / `Answer:` after the images, for small students without a chat format."""
    lines = [f"{IMAGE_PLACEHOLDER}\n" * images]
    lines += [f"Question: {asked}\nAnswer: {answered}\n" for asked, answered in history]
    text = "".join(lines) + f"Question: {question}\nAnswer:"
    return Prompt(text=text, answer_prefix=" ", add_special_tokens=True)


VICUNA_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)


def _vicuna(
    tokenizer: Any, history: Sequence[Turn], question: str, images: int, *, user: str, assistant: str
) -> Prompt:
    """System sentence, then turns; one space after a question, the end-of-sequence token after an answer."""
    asked = _asked(history, question, images)
    text = f"{VICUNA_SYSTEM} "
    for said, (_, answered) in zip(asked, history, strict=False):
        text += f"{user}: {said} {assistant}: {answered}{tokenizer.eos_token}"
    text += f"{user}: {asked[-1]} {assistant}:"
    return Prompt(text=text, answer_prefix=_answer_prefix(tokenizer, f"{assistant}:"), add_special_tokens=True)


@_template
def vicuna_v1(tokenizer: Any, history: Sequence[Turn], question: str, images: int) -> Prompt:
    """LLaVA-1.5's format, in which the paper also trains LLaVA-Med."""
    return _vicuna(tokenizer, history, question, images, user="USER", assistant="ASSISTANT")


@_template
def huatuo_v1(tokenizer: Any, history: Sequence[Turn], question: str, images: int) -> Prompt:
    """`vicuna_v1` with other roles: the format in which the paper trains HuatuoGPT-Vision."""
    return _vicuna(tokenizer, history, question, images, user="<|user|>", assistant="<|assistant|>")


@_template
def mistral_instruct(tokenizer: Any, history: Sequence[Turn], question: str, images: int) -> Prompt:
    """LLaVA-Med-1.5's own format for inference."""
    asked = _asked(history, question, images)
    text = ""
    for said, (_, answered) in zip(asked, history, strict=False):
        text += f"[INST] {said} [/INST] {answered} {tokenizer.eos_token}"
    text += f"[INST] {asked[-1]} [/INST]"
    return Prompt(text=text, answer_prefix=_answer_prefix(tokenizer, "[/INST]"), add_special_tokens=True)


@_template
def huatuo(tokenizer: Any, history: Sequence[Turn], question: str, images: int) -> Prompt:
    """HuatuoGPT-Vision's own format for inference, without a begin-of-sequence token."""
    asked = _asked(history, question, images)
    text = ""
    for said, (_, answered) in zip(asked, history, strict=False):
        text += f"<|user|>\n{said}\n<|assistant|>\n{answered} \n"
    text += f"<|user|>\n{asked[-1]}\n<|assistant|>\n"
    return Prompt(text=text, answer_prefix="", add_special_tokens=False)


@_template
def chat(tokenizer: Any, history: Sequence[Turn], question: str, images: int) -> Prompt:
    """The folder's own chat template: the ids that transformers' processor gives, begin-of-sequence token included.

    Raises:
        SettingsError: the folder has no chat template, or one that cannot be used.
    """
    if not tokenizer.chat_template:
        raise SettingsError("student.template is 'chat', but this folder has no chat template: use 'vicuna_v1'")
    asked = [*(turn[0] for turn in history), question]
    text, form = render_chat(tokenizer, asked, [turn[1] for turn in history], images)
    return Prompt(
        text=text,
        answer_prefix=form.answer_prefix,
        add_special_tokens=tokenizer.bos_token is None or not text.startswith(tokenizer.bos_token),
        answer_end=form.answer_end,
        joint=True,
    )


def find_template(name: str) -> TemplateFunction:
    """Look a template up by name.

    Raises:
        SettingsError: there is none of this name.
    """
    if name not in TEMPLATES:
        raise SettingsError(f"no template is called {name!r}; there are: {', '.join(sorted(TEMPLATES))}")
    return TEMPLATES[name]
