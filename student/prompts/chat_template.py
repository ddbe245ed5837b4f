"""The chat template of a folder, rendered as transformers' own processor renders it.

Templates come in three forms: those of multimodal models take lists of parts and write the image token where an image
is; others take lists of text parts; those of language models take plain strings. The form is found out with a message
whose text is known.
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
"""What a template writes where an image is, unless the tokenizer has another name for it."""
PROBE = "\ufdd2"
"""Text of the message that a template's form is found out with."""

Form = Literal["images", "parts", "text"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ChatForm:
    """How a chat template takes a message, and what it writes around an answer."""

    form: Form
    answer_prefix: str
    """Blanks between the prompt and the answer."""
    answer_end: str
    """What follows an answer, up to and including the template's end token; "" where it writes none."""


def read_chat_template(folder: Path, tokenizer: Any) -> str | dict[str, str] | None:
    """The chat template of a folder in the order of transformers' processor: its own, else its tokenizer's.

    That is processor_config.json's, chat_template.json's, or the tokenizer's, which reads chat_template.jinja and
    tokenizer_config.json.

    Raises:
        InputError: a file that should have one cannot be read.
    """
    for name, needed in (("processor_config.json", False), ("chat_template.json", True)):
        path = folder / name
        if not path.is_file():
            continue
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            found = values["chat_template"] if needed else values.get("chat_template")
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise InputError(f"{path}: its chat template cannot be read: {error!r}") from error
        if not isinstance(found, str | None):
            raise InputError(f"{path}: chat_template is {type(found).__name__}, not text")
        if found is not None:
            return found
    own: str | dict[str, str] | None = tokenizer.chat_template
    return own


def render_chat(tokenizer: Any, asked: Sequence[str], answered: Sequence[str], images: int) -> tuple[str, ChatForm]:
    """The text of a conversation up to its next answer, images in front of the first question.

    Raises:
        SettingsError: the template cannot be rendered, leaves a question out, or has no place for an image.
    """
    form = chat_form(tokenizer, str(tokenizer.chat_template))
    name = image_name(tokenizer)
    questions, answers = ([cut_names(text, [name]) for text in texts] for texts in (asked, answered))
    text = _render(tokenizer, _messages(form.form, questions, answers, images))
    if any(question.strip() not in text for question in questions):
        raise SettingsError("the folder's chat template leaves the question out: set student.template to another")
    if form.form == "images":
        if text.count(name) != images:
            raise SettingsError(
                f"the folder's chat template writes {name!r} {text.count(name)} times for {images} images: set "
                "student.template to another"
            )
        text = text.replace(name, IMAGE_PLACEHOLDER)
    elif text.count(IMAGE_PLACEHOLDER) != images:
        raise SettingsError(
            f"the folder's chat template writes the images {text.count(IMAGE_PLACEHOLDER)} times, the question has "
            f"{images}: set student.template to another"
        )
    if name not in control_tokens(tokenizer):  # the tokenizer reads it as any other text
        text = text.replace(name[0] + CUT + name[1:], name)
    return text, form


def image_name(tokenizer: Any) -> str:
    """What chat templates write where an image is."""
    return getattr(tokenizer, "image_token", None) or IMAGE_TOKEN


@lru_cache(maxsize=8)
def chat_form(tokenizer: Any, source: str) -> ChatForm:
    """Find out how a tokenizer's chat template, whose text is `source`, wants its messages.

    Raises:
        SettingsError: it takes a question in none of the forms.
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
        is_dumped = "'type'" in prompt or '"type"' in prompt  # the list itself was written, not its text
        expected = 1 if form == "images" else 0
        if PROBE in prompt and not is_dumped and prompt.count(image_name(tokenizer)) == expected:
            return _with_answer(tokenizer, form, messages, prompt)
    if len(problems) == len(forms):
        raise SettingsError(problems[-1])
    raise SettingsError("the folder's chat template leaves the question out: set student.template to another")


def _with_answer(tokenizer: Any, form: Form, messages: list[dict[str, Any]], prompt: str) -> ChatForm:
    """What a template writes between a prompt and an answer, and behind the answer."""
    answer = {"role": "assistant", "content": _content(form, PROBE * 2)}
    try:
        before, _, after = _render(tokenizer, [*messages, answer], prompt=False).partition(PROBE * 2)
    except SettingsError:  # a template that is for questions alone
        before, after = "", ""
    between = before.removeprefix(prompt) if before.startswith(prompt) else ""
    ends = [after.find(name) + len(name) for name in control_tokens(tokenizer) if after.lstrip().startswith(name)]
    return ChatForm(
        form=form,
        answer_prefix=between if not between.strip() else "",
        answer_end=after[: max(ends)] if ends else "",
    )


def _messages(form: Form, asked: Sequence[str], answered: Sequence[str], images: int) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    for number, text in enumerate(asked):
        content = _content(form, text if form == "images" or number else f"{IMAGE_PLACEHOLDER}\n" * images + text)
        if form == "images" and number == 0:
            content = [*({"type": "image"} for _ in range(images)), *content]
        messages.append({"role": "user", "content": content})
        if number < len(answered):
            messages.append({"role": "assistant", "content": _content(form, answered[number])})
    return messages


def _content(form: Form, text: str) -> Any:
    return text if form == "text" else [{"type": "text", "text": text}]


def _render(tokenizer: Any, messages: list[dict[str, Any]], *, prompt: bool = True) -> str:
    try:
        text: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
    except (MemoryError, Warning):
        raise
    except Exception as error:  # a template is a program of its folder's: it may raise anything
        raise SettingsError(
            f"the folder's chat template cannot be used: {reason(error)}. Set student.template to another"
        ) from error
    return text
