"""How a base is asked: the template and the tokens that end an answer.

The same weights with another chat template or other end tokens give other answers, and a fingerprint of weights does
not tell, so an adapter's record holds this beside the fingerprint.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transformers import GenerationConfig, PreTrainedTokenizerBase

from ...errors import InputError


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptIdentity:
    """What decides a prompt and where its answer ends, apart from weights and vocabulary."""

    template: str
    """The template in use."""
    base_template: str
    """The one that the base is asked in unless told otherwise."""
    chat_template_sha256: str | None
    """Digest of the tokenizer's chat template where `template` is `chat`; None: another one is in use."""
    end_token: int | None
    """Id that the tokenizer ends a text with; training puts it behind every answer."""
    end_tokens: tuple[int, ...]
    """Ids that end an answer by generation_config.json, sorted."""


def prompt_identity(
    tokenizer: PreTrainedTokenizerBase, generation: GenerationConfig, *, template: str, base_template: str
) -> PromptIdentity:
    """Of a loaded base; `template` is the one in use, `base_template` the base's own."""
    ends = generation.eos_token_id
    return PromptIdentity(
        template=template,
        base_template=base_template,
        chat_template_sha256=_digest(tokenizer.chat_template) if template == "chat" else None,
        end_token=tokenizer.eos_token_id,
        end_tokens=tuple(sorted(ends if isinstance(ends, list) else [] if ends is None else [ends])),
    )


def check_prompt(before: PromptIdentity | None, now: PromptIdentity, adapter: Path, base: Path) -> None:
    """Check that a base is asked as it was when an adapter was trained on it.

    Args:
        before: what the adapter recorded; None for adapters of releases that did not.
        now: of the base, with the adapter's template in use.
        adapter: the adapter's folder, for the message.
        base: the base's folder, for the message.

    Raises:
        InputError: it is asked in another way; all that differs is listed with both values.
    """
    if before is None:
        return
    old, new = asdict(before), asdict(now)
    if before.template != before.base_template:  # it was chosen, whatever the base's own was
        del old["base_template"]
    differing = [f"{name} was {value}, is {new[name]}" for name, value in old.items() if value != new[name]]
    if differing:
        raise InputError(
            f"the adapter {adapter} was trained on a base that was asked in another way than {base} is now: "
            f"{'; '.join(differing)}. Give the base as it was with --student, or train again"
        )


def _digest(chat_template: Any) -> str | None:
    """Of the template's text; of all of them where a tokenizer has several by name."""
    if not chat_template:
        return None
    text = chat_template if isinstance(chat_template, str) else json.dumps(chat_template, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
