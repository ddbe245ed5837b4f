"""How a base is prompted: the template and the tokens that end an answer.

The same weights with a different chat template or end tokens give different answers, which a fingerprint of weights
does not show, so an adapter's record contains this in addition to the fingerprint.
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
    """What determines a prompt and the end of an answer, besides weights and vocabulary."""

    template: str
    """The template in use."""
    base_template: str
    """The base's default template."""
    chat_template_sha256: str | None
    """Digest of the tokenizer's chat template if `template` is `chat`, else None."""
    end_token: int | None
    """The tokenizer's end-of-sequence id, which training adds after every answer."""
    end_tokens: tuple[int, ...]
    """Ids that end an answer according to generation_config.json, sorted."""


def prompt_identity(
    tokenizer: PreTrainedTokenizerBase, generation: GenerationConfig, *, template: str, base_template: str
) -> PromptIdentity:
    """Prompt identity of a base; `template` is the one in use, `base_template` the base's default."""
    ends = generation.eos_token_id
    return PromptIdentity(
        template=template,
        base_template=base_template,
        chat_template_sha256=_digest(tokenizer.chat_template) if template == "chat" else None,
        end_token=tokenizer.eos_token_id,
        end_tokens=tuple(sorted(ends if isinstance(ends, list) else [] if ends is None else [ends])),
    )


def check_prompt(before: PromptIdentity | None, now: PromptIdentity, adapter: Path, base: Path) -> None:
    """Check that a base is prompted as it was when an adapter was trained on it.

    Args:
        before: the adapter's record; None for adapters of older releases.
        now: prompt identity of the base with the adapter's template.
        adapter: the adapter's folder, for the message.
        base: the base's folder, for the message.

    Raises:
        InputError: it is prompted differently; the message lists all differences with both values.
    """
    if before is None:
        return
    old, new = asdict(before), asdict(now)
    if before.template != before.base_template:  # set explicitly, so the base's default does not matter
        del old["base_template"]
    differing = [f"{name} was {value}, is {new[name]}" for name, value in old.items() if value != new[name]]
    if differing:
        raise InputError(
            f"the adapter {adapter} was trained on a base that was prompted differently than {base} is now: "
            f"{'; '.join(differing)}. Pass the original base as --student, or train again"
        )


def _digest(chat_template: Any) -> str | None:
    """Digest of the template's text, or of all templates if a tokenizer has several named ones."""
    if not chat_template:
        return None
    text = chat_template if isinstance(chat_template, str) else json.dumps(chat_template, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
