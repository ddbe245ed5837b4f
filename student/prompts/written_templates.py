"""medalign's prompt templates as Jinja, for stock transformers, vLLM and TRL: the chat template of a written folder.

Each renders the text of the template of the same name in templates.py. Images are parts of a message and come before
its text.
"""

import json
from string import Template
from typing import Any, Final

from .chat_template import image_name
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


def written_template(name: str, tokenizer: Any) -> str:
    """The Jinja text of a template other than `chat`, for the tokenizer of a folder.

    It starts with the token that the tokenizer adds before every text, because vLLM and `apply_chat_template` of a
    tokenizer add none; transformers' processors then add no second one.
    """
    start, user, assistant, prompt = _TEXTS[name]
    adds_bos = find_template(name)(tokenizer, [], "", 0).add_special_tokens
    starts_with_bos = adds_bos and leading_ids(tokenizer) == [tokenizer.bos_token_id]
    text = _START.substitute(image=image_name(tokenizer)) + ("{{- bos_token -}}\n" if starts_with_bos else "")
    text += f"{{{{- {json.dumps(start)} -}}}}\n" if start else ""
    return text + _TURNS.substitute(user=user, assistant=assistant, prompt=prompt)
