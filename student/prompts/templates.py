"""Prompt templates: how a question becomes the prompt that a student was trained with.

A template is a pure function from turns to text; a placeholder marks where the image tokens go. The text ends where the
answer begins, so the label boundary is exact by construction. User text never becomes a control token.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, Literal

from ...errors import SettingsError
from ...suggestions import suggestion
from .chat_template import render_chat
from .control_tokens import IMAGE_PLACEHOLDER, as_text

Turn = tuple[str, str]
"""An earlier question and its answer."""


TemplateOrigin = Literal["option", "adapter", "record", "folder", "family", "guess"]
"""Where a student's template comes from: an option, its adapter, the record next to the weights, the folder's chat
template, or the original project's family; or it is a guess."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt:
    """Text up to the answer, and how the answer continues it."""

    text: str
    answer_prefix: str
    """Text between the prompt and the answer, for example one space."""
    add_special_tokens: bool
    """Whether the tokenizer adds its begin-of-sequence token (False if the text already has it)."""
    answer_end: str = ""
    """Text that ends an answer, including the end token; "" means the tokenizer's end-of-sequence token."""
    joint: bool = False
    """Whether text after an image is tokenized as a continuation, as processors do, or separately."""


TemplateFunction = Callable[[Any, Sequence[Turn], str, int], Prompt]
"""(tokenizer, earlier turns, question, number of images) -> prompt. Images are in the first turn."""

TEMPLATES: dict[str, TemplateFunction] = {}


def _template(function: TemplateFunction) -> TemplateFunction:
    """Register a template by its name; user text is marked as text before it reaches the template."""

    @wraps(function)
    def with_user_text(tokenizer: Any, history: Sequence[Turn], question: str, images: int) -> Prompt:
        turns = [(as_text(earlier, tokenizer), as_text(answer, tokenizer)) for earlier, answer in history]
        return function(tokenizer, turns, as_text(question, tokenizer), images)

    TEMPLATES[function.__name__] = with_user_text
    return with_user_text


def _with_images(question: str, images: int) -> str:
    return f"{IMAGE_PLACEHOLDER}\n" * images + question


def _user_turns(history: Sequence[Turn], question: str, images: int) -> list[str]:
    """The user's turns, stripped as in the original projects, with the images before the first."""
    turns = [text.strip() for text in (*(turn[0] for turn in history), question)]
    return [_with_images(turns[0], images), *turns[1:]]


def _answer_prefix(tokenizer: Any, end: str) -> str:
    """Text before an answer, so that prompt and answer tokenized separately give the same tokens as tokenized together.

    One space, or nothing if the tokenizer adds a space before every text.
    """

    def ids(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    together = ids(f"{end} yes")
    return next((prefix for prefix in (" ", "") if ids(end) + ids(f"{prefix}yes") == together), " ")


@_template
def plain(tokenizer: Any, history: Sequence[Turn], question: str, images: int) -> Prompt:
    """`Question: ...` / `Answer:` after the images, for small students without a chat format."""
    lines = [f"{IMAGE_PLACEHOLDER}\n" * images]
    lines += [f"Question: {earlier}\nAnswer: {answer}\n" for earlier, answer in history]
    text = "".join(lines) + f"Question: {question}\nAnswer:"
    return Prompt(text=text, answer_prefix=" ", add_special_tokens=True)


VICUNA_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)


def _vicuna(
    tokenizer: Any, history: Sequence[Turn], question: str, images: int, *, user: str, assistant: str
) -> Prompt:
    """System prompt, then turns; one space after a question, the end-of-sequence token after an answer."""
    user_turns = _user_turns(history, question, images)
    text = f"{VICUNA_SYSTEM} "
    for user_text, (_, answer) in zip(user_turns, history, strict=False):
        text += f"{user}: {user_text} {assistant}: {answer}{tokenizer.eos_token}"
    text += f"{user}: {user_turns[-1]} {assistant}:"
    return Prompt(text=text, answer_prefix=_answer_prefix(tokenizer, f"{assistant}:"), add_special_tokens=True)


@_template
def vicuna_v1(tokenizer: Any, history: Sequence[Turn], question: str, images: int) -> Prompt:
    """LLaVA-1.5's format, with which the paper also trains LLaVA-Med."""
    return _vicuna(tokenizer, history, question, images, user="USER", assistant="ASSISTANT")


@_template
def huatuo_v1(tokenizer: Any, history: Sequence[Turn], question: str, images: int) -> Prompt:
    """`vicuna_v1` with other role names: the format with which the paper trains HuatuoGPT-Vision."""
    return _vicuna(tokenizer, history, question, images, user="<|user|>", assistant="<|assistant|>")


@_template
def mistral_instruct(tokenizer: Any, history: Sequence[Turn], question: str, images: int) -> Prompt:
    """LLaVA-Med-1.5's format for inference."""
    user_turns = _user_turns(history, question, images)
    text = ""
    for user_text, (_, answer) in zip(user_turns, history, strict=False):
        text += f"[INST] {user_text} [/INST] {answer} {tokenizer.eos_token}"
    text += f"[INST] {user_turns[-1]} [/INST]"
    return Prompt(text=text, answer_prefix=_answer_prefix(tokenizer, "[/INST]"), add_special_tokens=True)


@_template
def huatuo(tokenizer: Any, history: Sequence[Turn], question: str, images: int) -> Prompt:
    """HuatuoGPT-Vision's format for inference, without a begin-of-sequence token."""
    user_turns = _user_turns(history, question, images)
    text = ""
    for user_text, (_, answer) in zip(user_turns, history, strict=False):
        text += f"<|user|>\n{user_text}\n<|assistant|>\n{answer} \n"
    text += f"<|user|>\n{user_turns[-1]}\n<|assistant|>\n"
    return Prompt(text=text, answer_prefix="", add_special_tokens=False)


@_template
def chat(tokenizer: Any, history: Sequence[Turn], question: str, images: int) -> Prompt:
    """The folder's chat template, with the ids of transformers' processor, including the begin-of-sequence token.

    Raises:
        SettingsError: the folder has no chat template, or it cannot be used.
    """
    if not tokenizer.chat_template:
        raise SettingsError("student.template is 'chat', but this folder has no chat template. Use 'vicuna_v1'")
    questions = [*(turn[0] for turn in history), question]
    text, form = render_chat(tokenizer, questions, [turn[1] for turn in history], images)
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
        SettingsError: there is no template of this name.
    """
    if name not in TEMPLATES:
        raise SettingsError(
            f"unknown template {name!r}{suggestion(name, TEMPLATES)}; choose from: {', '.join(sorted(TEMPLATES))}"
        )
    return TEMPLATES[name]
