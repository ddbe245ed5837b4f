"""The chat template of a written folder, with which stock transformers, vLLM and TRL prompt it as medalign does.

medalign's own templates are here as Jinja, each with the text of the template of the same name in templates.py. A chat
template for text alone, as of a language model, is extended to messages with images. Images are parts of a message, and
come before its text.
"""

import json
from string import Template
from typing import Any, Final

from ...errors import SettingsError
from .chat_template import chat_form, image_name
from .control_tokens import leading_ids
from .templates import VICUNA_SYSTEM, find_template

_START: Final = Template(
    """\
{%- macro pictures(message) -%}
{%- if message['content'] is not string -%}
{%- for part in message['content'] if part['type'] == 'image' -%}{{- '$image\\n' -}}{%- endfor -%}
{%- endif -%}
{%- endmacro -%}
{%- macro words(message) -%}
{%- if message['content'] is string -%}{{- message['content'] -}}
{%- else -%}
{%- for part in message['content'] if part['type'] == 'text' -%}{{- part['text'] -}}{%- endfor -%}
{%- endif -%}
{%- endmacro -%}
"""
)
_TURNS: Final = Template(
    """\
{%- for message in messages -%}
{%- if message['role'] == 'user' -%}{{- $user -}}
{%- elif message['role'] == 'assistant' -%}{{- $assistant -}}
{%- else -%}{{- raise_exception('This student knows the roles user and assistant, not ' + message['role']) -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- $prompt -}}{%- endif -%}
"""
)
_QUESTION: Final = "pictures(message) + (words(message) | trim)"
_LAST: Final = "eos_token if loop.last else"


def _vicuna(user: str, assistant: str) -> tuple[str, str, str, str]:
    answer = f"'{assistant}: ' + words(message) + eos_token"
    return f"{VICUNA_SYSTEM} ", f"'{user}: ' + {_QUESTION} + ' '", answer, f"'{assistant}:'"


_TEXTS: Final[dict[str, tuple[str, str, str, str]]] = {
    "plain": (
        "",
        "pictures(message) + 'Question: ' + words(message) + '\\n'",
        f"'Answer: ' + words(message) + ({_LAST} '\\n')",
        "'Answer:'",
    ),
    "vicuna_v1": _vicuna("USER", "ASSISTANT"),
    "huatuo_v1": _vicuna("<|user|>", "<|assistant|>"),
    "mistral_instruct": (
        "",
        f"'[INST] ' + {_QUESTION} + ' [/INST]'",
        f"' ' + words(message) + ({_LAST} ' ' + eos_token)",
        "''",
    ),
    "huatuo": (
        "",
        f"'<|user|>\\n' + {_QUESTION} + '\\n'",
        f"'<|assistant|>\\n' + words(message) + ({_LAST} ' \\n')",
        "'<|assistant|>\\n'",
    ),
}
"""Text before the first message, and Jinja expressions of a question, an answer, and the start of an answer."""


_FLAT: Final = Template(
    """\
{%- set flat = namespace(messages=[]) -%}
{%- for message in messages -%}
{%- set content = namespace(text='') -%}
{%- if message['content'] is string -%}
{%- set content.text = message['content'] -%}
{%- elif message['content'] -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'image' -%}{%- set content.text = content.text + '$image\\n' -%}
{%- elif part['type'] == 'text' -%}{%- set content.text = content.text + part['text'] -%}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{%- set flat.messages = flat.messages + [dict(message, content=$content)] -%}
{%- endfor -%}
{%- set messages = flat.messages -%}
"""
)
"""Put before a template for text alone: messages get the content that it expects."""
_CONTENT: Final = {"text": "content.text", "parts": "[{'type': 'text', 'text': content.text}]"}


def written_template(name: str, tokenizer: Any) -> Any:
    """The chat template of a folder whose student was trained with the template `name`, in Jinja.

    With `chat`, that of the tokenizer, extended to messages with images if it is for text alone; it is unchanged if it
    is missing, cannot be used, or is one of several.
    """
    if name != "chat":
        return _own_template(name, tokenizer)
    template = tokenizer.chat_template
    if not isinstance(template, str):
        return template
    try:
        form = chat_form(tokenizer, template).form
    except SettingsError:
        return template
    if form == "images":
        return template
    return _FLAT.substitute(image=image_name(tokenizer), content=_CONTENT[form]) + template


def _own_template(name: str, tokenizer: Any) -> str:
    """One of medalign's templates.

    It starts with the token that the tokenizer adds before every text, because vLLM and `apply_chat_template` of a
    tokenizer add none; transformers' processors then add no second one.
    """
    start, user, assistant, prompt = _TEXTS[name]
    adds_bos = find_template(name)(tokenizer, [], "", 0).add_special_tokens
    starts_with_bos = adds_bos and leading_ids(tokenizer) == [tokenizer.bos_token_id]
    text = _START.substitute(image=image_name(tokenizer)) + ("{{- bos_token -}}\n" if starts_with_bos else "")
    text += f"{{{{- {json.dumps(start)} -}}}}\n" if start else ""
    return text + _TURNS.substitute(user=user, assistant=assistant, prompt=prompt)
