"""Prompt templates: how a question becomes the text that a student was taught to answer.

A template is a pure function from turns to text; `<image>` marks where the image's tokens go. The text ends where the
answer begins, so the label boundary is exact by construction.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import SettingsError

IMAGE_PLACEHOLDER = "<image>"

Turn = tuple[str, str]
"""An earlier question and its answer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt:
    """Text up to the answer, and how the answer continues it."""

    text: str
    answer_prefix: str
    """Goes between the prompt and the answer, for example one space."""
    add_special_tokens: bool
    """Whether the tokenizer adds its own begin-of-sequence token (False where the text has it already)."""


TemplateFunction = Callable[[Any, Sequence[Turn], str, int], Prompt]


def _with_images(question: str, images: int) -> str:
    return f"{IMAGE_PLACEHOLDER}\n" * images + question


def plain(tokenizer: Any, history: Sequence[Turn], question: str, images: int) -> Prompt:
    """`<image>` / `Question: ...` / `Answer:`, for small students without a chat format."""
    lines = [f"{IMAGE_PLACEHOLDER}\n" * images]
    lines += [f"Question: {asked}\nAnswer: {answered}\n" for asked, answered in history]
    text = "".join(lines) + f"Question: {question}\nAnswer:"
    return Prompt(text=text, answer_prefix=" ", add_special_tokens=True)


VICUNA_SYSTEM = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions."
)


def vicuna_v1(tokenizer: Any, history: Sequence[Turn], question: str, images: int) -> Prompt:
    """LLaVA-1.5's format; the paper trains LLaVA-Med with it. Images stand in the first turn."""
    asked = [*(turn[0] for turn in history), question]
    asked[0] = _with_images(asked[0], images)
    answered = [turn[1] for turn in history]
    text = VICUNA_SYSTEM
    for user, assistant in zip(asked, answered, strict=False):
        text += f" USER: {user} ASSISTANT: {assistant}{tokenizer.eos_token}"
    text += f" USER: {asked[-1]} ASSISTANT:"
    return Prompt(text=text, answer_prefix=" ", add_special_tokens=True)


def chat(tokenizer: Any, history: Sequence[Turn], question: str, images: int) -> Prompt:
    """The tokenizer's own chat template. Images stand in the first turn.

    Raises:
        SettingsError: the tokenizer has no chat template.
    """
    if not tokenizer.chat_template:
        raise SettingsError("student.template is 'chat', but this tokenizer has no chat template: use 'vicuna_v1'")
    asked = [*(turn[0] for turn in history), question]
    asked[0] = _with_images(asked[0], images)
    messages = []
    for user, assistant in zip(asked, (turn[1] for turn in history), strict=False):
        messages += [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]
    messages.append({"role": "user", "content": asked[-1]})
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return Prompt(text=text, answer_prefix="", add_special_tokens=False)


TEMPLATES: dict[str, TemplateFunction] = {"plain": plain, "vicuna_v1": vicuna_v1, "chat": chat}


def find_template(name: str) -> TemplateFunction:
    """Look a template up by name.

    Raises:
        SettingsError: there is none of this name.
    """
    if name not in TEMPLATES:
        raise SettingsError(f"no template is called {name!r}; there are: {', '.join(sorted(TEMPLATES))}")
    return TEMPLATES[name]
