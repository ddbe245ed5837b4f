"""Tokens that end an answer: those of transformers' `generate`, of the tokenizer and of the template."""

from typing import Any

from transformers import LlavaForConditionalGeneration

from ...errors import InputError
from .control_tokens import text_ids
from .templates import TemplateFunction


def end_tokens(llava: LlavaForConditionalGeneration, tokenizer: Any, template: TemplateFunction) -> tuple[int, ...]:
    """Ids that end an answer, the tokenizer's end-of-sequence token first.

    Raises:
        InputError: generation_config.json gives an end token that is not a token id of the model.
        SettingsError: the template cannot be used.
    """
    configured = llava.generation_config.eos_token_id
    listed = [] if configured is None else list(configured) if isinstance(configured, list | tuple) else [configured]
    rows = int(llava.config.text_config.vocab_size)
    for number in listed:
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < rows:
            raise InputError(
                f"generation_config.json: eos_token_id is {configured!r}, but end tokens must be integers from 0 to "
                f"{rows - 1}"
            )
    last = template(tokenizer, (), "What is seen?", 0).answer_end
    ends = [int(tokenizer.eos_token_id), *listed, *text_ids(tokenizer, last)[-1:]]
    return tuple(dict.fromkeys(ends))
