"""The chat template of a folder, rendered as transformers' processor renders it.

Templates come in three forms: those of multimodal models take lists of parts and write the image token for an image;
others take lists of text parts; those of language models take plain strings. The form is detected with a probe message.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from ...errors import InputError, SettingsError
from ..file_errors import reason
from .control_tokens import CUT, IMAGE_PLACEHOLDER, control_tokens, cut_names

IMAGE_TOKEN = "<image>"
"""What a template writes for an image, unless the tokenizer has another name for it."""
PROBE = "\ufdd2"
"""Text of the message that detects a template's form."""

Form = Literal["images", "parts", "text"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ChatForm:
    """The form of a chat template's messages, and what it writes around an answer."""

    form: Form
    answer_prefix: str
    """Whitespace between the prompt and the answer."""
    answer_end: str
    """What follows an answer, up to and including the template's end token; "" if it writes none."""


def read_chat_template(folder: Path, tokenizer: Any) -> str | dict[str, str] | None:
    """Read the chat template of a folder, in the same order as transformers' processor.

    That order is processor_config.json, chat_template.json, and the tokenizer's template, which comes from
    chat_template.jinja or tokenizer_config.json.

    Raises:
        InputError: a file that should contain a chat template cannot be read.
    """
    for name, is_required in (("processor_config.json", False), ("chat_template.json", True)):
        path = folder / name
        if not path.is_file():
            continue
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            template = values["chat_template"] if is_required else values.get("chat_template")
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise InputError(f"{path}: the chat template cannot be read: {error!r}") from error
        if not isinstance(template, str | None):
            raise InputError(f"{path}: chat_template is {type(template).__name__}, not text")
        if template is not None:
            return template
    own: str | dict[str, str] | None = tokenizer.chat_template
    return own


def render_chat(tokenizer: Any, questions: Sequence[str], answers: Sequence[str], images: int) -> tuple[str, ChatForm]:
    """Render a conversation up to its next answer, with the images before the first question.

    Raises:
        SettingsError: the template cannot be rendered, omits a question, or does not support images.
    """
    form = chat_form(tokenizer, str(tokenizer.chat_template))
    name = image_name(tokenizer)
    questions, answers = ([cut_names(text, [name]) for text in texts] for texts in (questions, answers))
    text = _render(tokenizer, _messages(form.form, questions, answers, images))
    if any(question.strip() not in text for question in questions):
        raise SettingsError("the folder's chat template omits the question. Set student.template to another template")
    if form.form == "images":
        if text.count(name) != images:
            raise SettingsError(
                f"the folder's chat template writes {name!r} {text.count(name)} times for {images} images. Set "
                "student.template to another template"
            )
        text = text.replace(name, IMAGE_PLACEHOLDER)
    elif text.count(IMAGE_PLACEHOLDER) != images:
        raise SettingsError(
            f"the folder's chat template writes {text.count(IMAGE_PLACEHOLDER)} images, but the question has {images}. "
            "Set student.template to another template"
        )
    if name not in control_tokens(tokenizer):  # the tokenizer reads it like any other text
        text = text.replace(name[0] + CUT + name[1:], name)
    return text, form


def image_name(tokenizer: Any) -> str:
    """What chat templates write for an image."""
    return getattr(tokenizer, "image_token", None) or IMAGE_TOKEN


@lru_cache(maxsize=8)
def chat_form(tokenizer: Any, source: str) -> ChatForm:
    """Detect the message form of a tokenizer's chat template, whose text is `source`.

    Raises:
        SettingsError: no form works.
    """
    problems: list[str] = []
    forms: tuple[Form, ...] = ("images", "parts", "text")
    for form in forms:
        messages = _messages(form, [PROBE], [], 1)
        try:
            prompt = _render(tokenizer, messages)
        except SettingsError as error:
            problems.append(str(error))
            continue
        is_dumped = "'type'" in prompt or '"type"' in prompt  # the list was written instead of its text
        expected = 1 if form == "images" else 0
        if PROBE in prompt and not is_dumped and prompt.count(image_name(tokenizer)) == expected:
            return _with_answer(tokenizer, form, messages, prompt)
    if len(problems) == len(forms):
        raise SettingsError(problems[-1])
    raise SettingsError("the folder's chat template omits the question. Set student.template to another template")


def _with_answer(tokenizer: Any, form: Form, messages: list[dict[str, Any]], prompt: str) -> ChatForm:
    """Detect what a template writes between a prompt and an answer, and after the answer."""
    answer = {"role": "assistant", "content": _content(form, PROBE * 2)}
    try:
        before, _, after = _render(tokenizer, [*messages, answer], prompt=False).partition(PROBE * 2)
    except SettingsError:  # a template for questions only
        before, after = "", ""
    between = before.removeprefix(prompt) if before.startswith(prompt) else ""
    ends = [after.find(name) + len(name) for name in control_tokens(tokenizer) if after.lstrip().startswith(name)]
    return ChatForm(
        form=form,
        answer_prefix=between if not between.strip() else "",
        answer_end=after[: max(ends)] if ends else "",
    )


def _messages(form: Form, questions: Sequence[str], answers: Sequence[str], images: int) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    for number, text in enumerate(questions):
        content = _content(form, text if form == "images" or number else f"{IMAGE_PLACEHOLDER}\n" * images + text)
        if form == "images" and number == 0:
            content = [*({"type": "image"} for _ in range(images)), *content]
        messages.append({"role": "user", "content": content})
        if number < len(answers):
            messages.append({"role": "assistant", "content": _content(form, answers[number])})
    return messages


def _content(form: Form, text: str) -> Any:
    return text if form == "text" else [{"type": "text", "text": text}]


def _render(tokenizer: Any, messages: list[dict[str, Any]], *, prompt: bool = True) -> str:
    try:
        text: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
    except (MemoryError, Warning):
        raise
    except Exception as error:  # templates are programs, so they may raise anything
        raise SettingsError(
            f"the folder's chat template cannot be used: {reason(error)}. Set student.template to another template"
        ) from error
    return text
