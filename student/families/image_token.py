"""The image token: an id that stands for an image, and that no text is tokenized to."""

import json
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import AddedToken, AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase

from ...errors import InputError
from ...plain_text import counted
from ..compat.transformers import quiet_length_warning
from ..file_errors import check_no_pointer, is_file, read_object, reading
from ..quiet_transformers import quiet_transformers

IMAGE_TOKEN = "<image>"
"""Name of the image token in tokenizers of transformers' format."""

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
"""Files that contain a vocabulary, some only together. Without one, transformers silently makes an empty vocabulary."""


def read_tokenizer(folder: Path, language_model: PreTrainedConfig | None = None) -> PreTrainedTokenizerBase:
    """Read the tokenizer of a folder; pass `language_model` if transformers does not know config.json's model type.

    Raises:
        InputError: the tokenizer cannot be read, its token ids differ from those in its files, or it has no
            end-of-sequence token.
    """
    options = {} if language_model is None else {"config": language_model}
    _check_files(folder)
    with reading(folder, "tokenizer"), quiet_transformers():
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False, **options)
        _check_added_ids(folder, tokenizer)
    quiet_length_warning(tokenizer)
    if tokenizer.eos_token_id is None:
        raise InputError(f"{folder}: the tokenizer has no end-of-sequence token, so answers would never end")
    return tokenizer


def _check_files(folder: Path) -> None:
    """Check that every tokenizer file can be read; the errors of transformers do not name the file."""
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
        raise InputError(f"{folder}: its tokenizer cannot be read: it has no vocabulary file ({listed})")


def _check_added_ids(folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Check that added tokens have the ids in the files.

    `tokenizers` assigns the next free ids regardless of the file, so a gap in the file shifts all tokens after it.
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
                f"{file} gives {token!r} the id {number}, but the loaded tokenizer gives it {ids[token]}: "
                "the ids of the added tokens have a gap or contradict each other"
            )


def add_image_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """Add `<image>` to the tokenizer if it is missing, and return its id, which no other token has.

    Raises:
        InputError: the tokenizer also gives that id to another token, or another token would get a new id.
    """
    before = dict(tokenizer.get_vocab())
    tokenizer.add_tokens([AddedToken(IMAGE_TOKEN, special=True, normalized=False)], special_tokens=True)
    image_token_id = int(tokenizer.convert_tokens_to_ids(IMAGE_TOKEN))
    sharing = [token for token, number in tokenizer.get_vocab().items() if number == image_token_id]
    if sharing != [IMAGE_TOKEN]:
        raise InputError(f"the tokenizer gives id {image_token_id} to {sharing}; {IMAGE_TOKEN} needs a unique id")
    check_same_ids(before, tokenizer)
    return image_token_id


def check_same_ids(before: Mapping[str, int], tokenizer: PreTrainedTokenizerBase, but: int | None = None) -> None:
    """Check that no token id has changed.

    Args:
        before: ids by token, before the tokenizer was changed.
        tokenizer: the changed tokenizer.
        but: an id whose token may be removed or renamed.

    Raises:
        InputError: a token was removed or has a different id.
    """
    after = tokenizer.get_vocab()
    moved = [token for token, number in before.items() if number != but and after.get(token) != number]
    if moved:
        token = min(moved, key=lambda token: before[token])
        raise InputError(
            f"changing the tokenizer for {IMAGE_TOKEN} would change the ids of "
            f"{counted(len(moved), 'other token')}, first: "
            f"{token!r} from {before[token]} to {after.get(token)}"
        )


def forget_image_token(tokenizer: PreTrainedTokenizerBase, image_token_id: int) -> None:
    """Make the tokenizer read the image token's name like any other text; every other token keeps its id.

    Images enter a prompt only by their id, so "<image>" in a question remains text. The token is renamed to a name that
    no text contains; if it were removed, `tokenizers` would shift the ids of all added tokens after it by one.

    Raises:
        InputError: the name is still tokenized to that id, as a word of the vocabulary; the id belongs to another
            special token; or another token would get a new id.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        raise InputError(
            f"{tokenizer.name_or_path}: the tokenizer is a {type(tokenizer).__name__}, which is not a fast tokenizer. "
            "Save it as tokenizer.json once"
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
                f"the tokenizer gives the text {name!r} the image token's id {image_token_id}, so a question that "
                "contains it would have an extra image"
            )


def _renamed(description: dict[str, Any], token_id: int) -> dict[str, Any]:
    """Rename the token of this id, in a tokenizer's description, to a name that no text contains."""
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
    """Check that the id is not an ordinary word's, as it is if config.json belongs to a different model."""
    if not {IMAGE_TOKEN, *tokenizer.get_added_vocab()}.intersection(names):
        raise InputError(
            f"{tokenizer.name_or_path}: image_token_id in config.json is {image_token_id}, which is the word "
            f"{names[0]!r} in the tokenizer. Copy the config.json and the tokenizer of the same model"
        )


def _check_not_special(tokenizer: PreTrainedTokenizerBase, image_token_id: int) -> None:
    """Check that the image token is not a special token, such as padding or end of sequence."""
    special = {"pad_token": tokenizer.pad_token_id, "eos_token": tokenizer.eos_token_id}
    special |= {"bos_token": tokenizer.bos_token_id, "unk_token": tokenizer.unk_token_id}
    same = [name for name, number in special.items() if number == image_token_id]
    if same:
        raise InputError(
            f"{tokenizer.name_or_path}: image_token_id in config.json is {image_token_id}, which is the "
            f"{' and '.join(same)} of the tokenizer. Copy the config.json and the tokenizer of the same model"
        )
