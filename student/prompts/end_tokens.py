"""The tokens that end an answer: every one that transformers' `generate` stops at, the tokenizer's, the template's."""

from typing import Any

from transformers import LlavaForConditionalGeneration

from ...errors import InputError
from .control_tokens import text_ids
from .templates import TemplateFunction


def end_tokens(llava: LlavaForConditionalGeneration, tokenizer: Any, template: TemplateFunction) -> tuple[int, ...]:
    """Ids that end an answer, the tokenizer's end-of-sequence token first.

    Raises:
        InputError: generation_config.json names an end token that is no token of the model.
        SettingsError: the template cannot be used.
    """
    named = llava.generation_config.eos_token_id
    listed = [] if named is None else list(named) if isinstance(named, list | tuple) else [named]
    rows = int(llava.config.text_config.vocab_size)
    for number in listed:
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < rows:
            raise InputError(
                f"generation_config.json: eos_token_id is {named!r}; end tokens are whole numbers from 0 to {rows - 1}"
            )
    last = template(tokenizer, (), "What is seen?", 0).answer_end
    ends = [int(tokenizer.eos_token_id), *listed, *text_ids(tokenizer, last)[-1:]]
    return tuple(dict.fromkeys(ends))
