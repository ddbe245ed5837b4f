"""The image token: an id that means an image, and that no text can become."""

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import AddedToken, AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase

from ..errors import InputError

IMAGE_TOKEN = "<image>"
"""What tokenizers of transformers' format call it."""


def read_tokenizer(folder: Path, language_model: PreTrainedConfig | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder; `language_model` where config.json's model type is unknown to transformers.

    Raises:
        InputError: there is none that can be read, or it cannot end a text.
    """
    options = {} if language_model is None else {"config": language_model}
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False, **options)
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise InputError(f"{folder}: its tokenizer cannot be read: {error}") from error
    if tokenizer.eos_token_id is None:
        raise InputError(f"{folder}: its tokenizer has no end-of-sequence token, so no answer could end")
    return tokenizer


def add_image_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """Give the tokenizer `<image>` if it has none, and return its id, which is free by construction.

    Raises:
        InputError: the tokenizer gives that id to another token as well.
    """
    tokenizer.add_tokens([AddedToken(IMAGE_TOKEN, special=True, normalized=False)], special_tokens=True)
    image_token_id = int(tokenizer.convert_tokens_to_ids(IMAGE_TOKEN))
    sharing = [token for token, number in tokenizer.get_vocab().items() if number == image_token_id]
    if sharing != [IMAGE_TOKEN]:
        raise InputError(f"the tokenizer gives id {image_token_id} to {sharing}; {IMAGE_TOKEN} needs its own")
    return image_token_id


def forget_image_token(tokenizer: PreTrainedTokenizerBase, image_token_id: int) -> None:
    """Let the tokenizer read the image token's name as any other text.

    Images enter a prompt by their id alone, so a question that says "<image>" stays a question.

    Raises:
        InputError: the name becomes that id all the same, as a word of the vocabulary.
    """
    backend = tokenizer.backend_tokenizer
    description: dict[str, Any] = json.loads(backend.to_str())
    names = [token["content"] for token in description["added_tokens"] if token["id"] == image_token_id]
    if names:
        description["added_tokens"] = [token for token in description["added_tokens"] if token["id"] != image_token_id]
        model = description["model"]
        if model["type"] == "WordLevel":  # whose words are tokens whether they were added or not
            model["vocab"] = {word: number for word, number in model["vocab"].items() if number != image_token_id}
        tokenizer._tokenizer = Tokenizer.from_str(json.dumps(description))
    for name in {*names, IMAGE_TOKEN}:
        if image_token_id in tokenizer(f"a {name} b", add_special_tokens=False)["input_ids"]:
            raise InputError(
                f"the tokenizer makes the image token's id {image_token_id} of the text {name!r}, so a question with "
                "it would have an image too many"
            )
