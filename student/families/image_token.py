"""The image token: an id that means an image, and that no text can become."""

import json
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import AddedToken, AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase

from ...errors import InputError
from ..compat.transformers import quiet_length_warning
from ..file_errors import check_no_pointer, is_file, read_object, reading
from ..quiet_transformers import quiet_transformers

IMAGE_TOKEN = "<image>"
"""What tokenizers of transformers' format call it."""

JSON_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "chat_template.json",
)
OTHER_FILES = ("tokenizer.model", "merges.txt", "vocab.txt", "spiece.model", "chat_template.jinja")
VOCABULARIES = (
    ("tokenizer.json",),
    ("tokenizer.model",),
    ("spiece.model",),
    ("vocab.txt",),
    ("vocab.json", "merges.txt"),
)
"""Files that hold a vocabulary, some only together. Without any transformers makes an empty one without a word."""


def read_tokenizer(folder: Path, language_model: PreTrainedConfig | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder; `language_model` where config.json's model type is unknown to transformers.

    Raises:
        InputError: there is none that can be read, it gives tokens other ids than its files do, or it cannot end a
            text.
    """
    options = {} if language_model is None else {"config": language_model}
    _check_files(folder)
    with reading(folder, "tokenizer"), quiet_transformers():
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False, **options)
        _check_added_ids(folder, tokenizer)
    quiet_length_warning(tokenizer)
    if tokenizer.eos_token_id is None:
        raise InputError(f"{folder}: its tokenizer has no end-of-sequence token, so no answer could end")
    return tokenizer


def _check_files(folder: Path) -> None:
    """Every tokenizer file that is there can be read; its own reader's errors name none."""
    for name in JSON_FILES:
        if is_file(folder / name):
            read_object(folder / name)
    for name in OTHER_FILES:
        if is_file(folder / name):
            check_no_pointer(folder / name)
            if not (folder / name).stat().st_size:
                raise InputError(f"{folder / name} is empty")
    if not any(all(is_file(folder / name) for name in names) for names in VOCABULARIES):
        listed = ", ".join(" with ".join(names) for names in VOCABULARIES)
        raise InputError(f"{folder}: its tokenizer cannot be read: it has no vocabulary, which is one of {listed}")


def _check_added_ids(folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Added tokens have the ids of the files.

    `tokenizers` gives them the next free ids whatever the file says, so a gap in the file moves all tokens behind it.
    """
    path, settings = folder / "tokenizer.json", folder / "tokenizer_config.json"
    added: dict[str, tuple[int, Path]] = {}
    if is_file(settings):
        decoder = read_object(settings).get("added_tokens_decoder") or {}
        added |= {token["content"]: (int(number), settings) for number, token in decoder.items()}
    if is_file(path):
        tokens = read_object(path).get("added_tokens") or []
        added |= {token["content"]: (int(token["id"]), path) for token in tokens}
    ids = tokenizer.get_vocab()
    for token, (number, file) in added.items():
        if token in ids and ids[token] != number:
            raise InputError(
                f"{file} gives {token!r} the id {number}, but the tokenizer that is made of it gives it {ids[token]}: "
                "its added tokens leave a gap or contradict each other"
            )


def add_image_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """Give the tokenizer `<image>` if it has none, and return its id, which is free by construction.

    Raises:
        InputError: the tokenizer gives that id to another token as well, or another token got a new id.
    """
    before = dict(tokenizer.get_vocab())
    tokenizer.add_tokens([AddedToken(IMAGE_TOKEN, special=True, normalized=False)], special_tokens=True)
    image_token_id = int(tokenizer.convert_tokens_to_ids(IMAGE_TOKEN))
    sharing = [token for token, number in tokenizer.get_vocab().items() if number == image_token_id]
    if sharing != [IMAGE_TOKEN]:
        raise InputError(f"the tokenizer gives id {image_token_id} to {sharing}; {IMAGE_TOKEN} needs its own")
    check_same_ids(before, tokenizer)
    return image_token_id


def check_same_ids(before: Mapping[str, int], tokenizer: PreTrainedTokenizerBase, but: int | None = None) -> None:
    """Check that every token has the id that it had.

    Args:
        before: ids by token, before the tokenizer was changed.
        tokenizer: the changed tokenizer.
        but: an id that is meant to be lost or renamed.

    Raises:
        InputError: a token is gone or has another id.
    """
    now = tokenizer.get_vocab()
    moved = [token for token, number in before.items() if number != but and now.get(token) != number]
    if moved:
        token = min(moved, key=lambda token: before[token])
        raise InputError(
            f"changing the tokenizer for {IMAGE_TOKEN} would move {len(moved)} other tokens, first: {token!r} from id "
            f"{before[token]} to {now.get(token)}"
        )


def forget_image_token(tokenizer: PreTrainedTokenizerBase, image_token_id: int) -> None:
    """Let the tokenizer read the image token's name as any other text; every other token keeps its id.

    Images enter a prompt by their id alone, so a question that says "<image>" stays a question. The token stays where
    it is under a name that no text has: without it, `tokenizers` would move all added tokens behind it down by one.

    Raises:
        InputError: the name becomes that id all the same, as a word of the vocabulary; the id is that of another
            special token; or another token would get a new id.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        raise InputError(
            f"{tokenizer.name_or_path}: its tokenizer is a {type(tokenizer).__name__}, which is not of the fast kind: "
            "save it once as tokenizer.json"
        )
    before = dict(tokenizer.get_vocab())
    _check_not_special(tokenizer, image_token_id)
    names = [token for token, number in before.items() if number == image_token_id]
    if names:
        _check_is_added(tokenizer, names, image_token_id)
        description = _renamed(json.loads(backend.to_str()), image_token_id)
        with reading(Path(tokenizer.name_or_path), "tokenizer"):
            tokenizer._tokenizer = Tokenizer.from_str(json.dumps(description))
        check_same_ids(before, tokenizer, but=image_token_id)
        _check_not_special(tokenizer, image_token_id)
    for name in {*names, IMAGE_TOKEN}:
        if image_token_id in tokenizer(f"a {name} b", add_special_tokens=False)["input_ids"]:
            raise InputError(
                f"the tokenizer makes the image token's id {image_token_id} of the text {name!r}, so a question with "
                "it would have an image too many"
            )


def _renamed(description: dict[str, Any], token_id: int) -> dict[str, Any]:
    """A tokenizer's description in which the token of this id has a name that no text has."""
    hidden = f"\ufdd1{secrets.token_hex(16)}\ufdd1"
    for token in description["added_tokens"]:
        if token["id"] == token_id:
            token |= {"content": hidden, "normalized": False, "single_word": False}
    model = description["model"]
    vocabulary = model.get("vocab")
    if isinstance(vocabulary, dict):  # BPE, WordLevel, WordPiece
        model["vocab"] = {hidden if number == token_id else word: number for word, number in vocabulary.items()}
    elif isinstance(vocabulary, list) and token_id < len(vocabulary):  # Unigram: pieces with their scores, in order
        vocabulary[token_id][0] = hidden
    return description


def _check_is_added(tokenizer: PreTrainedTokenizerBase, names: Sequence[str], image_token_id: int) -> None:
    """Where config.json and tokenizer belong to different models, the id is an ordinary word's."""
    if not {IMAGE_TOKEN, *tokenizer.get_added_vocab()}.intersection(names):
        raise InputError(
            f"{tokenizer.name_or_path}: config.json says that image_token_id is {image_token_id}, which is the "
            f"tokenizer's word {names[0]!r}"
        )


def _check_not_special(tokenizer: PreTrainedTokenizerBase, image_token_id: int) -> None:
    """An image's positions must be told apart from padding and from ends."""
    special = {"pad_token": tokenizer.pad_token_id, "eos_token": tokenizer.eos_token_id}
    special |= {"bos_token": tokenizer.bos_token_id, "unk_token": tokenizer.unk_token_id}
    same = [name for name, number in special.items() if number == image_token_id]
    if same:
        raise InputError(
            f"{tokenizer.name_or_path}: config.json says that image_token_id is {image_token_id}, which is the "
            f"tokenizer's {' and '.join(same)}"
        )
