"""Transformers behind metrics, from local folders: strict, without remote code, without pickled objects."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedTokenizerBase

from ....errors import InputError
from ....plain_text import counted
from ...families.base_files import check_no_adapter
from ...quiet_transformers import quiet_transformers

LONGEST = 512  # tokens with the special ones: what all encoders here were trained with


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder.

    Raises:
        InputError: there is none that transformers can read.
    """
    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise InputError(f"{folder} has no tokenizer that transformers can read: {error}") from error
    if tokenizer.pad_token_id is None:
        raise InputError(f"the tokenizer in {folder} has no padding token; it is not the published one")
    return tokenizer


def load_pretrained(kind: Any, folder: Path) -> Any:
    """A model of one of transformers' Auto classes; every weight that it uses must be in the folder.

    Raises:
        InputError: unreadable, weights are missing or of another shape, or an adapter lies beside them.
    """
    check_no_adapter(folder)
    try:
        with quiet_transformers():
            model, found = kind.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False, weights_only=True, output_loading_info=True
            )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise InputError(f"{folder} has no model that transformers can read: {error}") from error
    missing = sorted(key for key in found["missing_keys"] if not key.startswith("pooler."))  # which no metric uses
    if missing or found["mismatched_keys"]:
        problem = (
            f"{counted(len(missing), 'weight is', 'weights are')} missing, first {missing[0]}"
            if missing
            else "weights of another shape"
        )
        raise InputError(f"the model in {folder} does not fit its config.json: {problem}")
    return model.eval()


def empty_model(folder: Path) -> Any:
    """The encoder that a folder's config.json describes, without weights of its own.

    Raises:
        InputError: no config.json that transformers knows.
    """
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        return AutoModel.from_config(config, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{folder} has no config.json that transformers knows: {error}") from error


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        InputError: missing or unreadable.
    """
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    return found


def read_weights(path: Path) -> dict[str, Any]:
    """What torch saved in a file: tensors and plain containers alone, nothing that would run code.

    Raises:
        InputError: missing, unreadable or holding other objects.
    """
    try:
        found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for files that are none of its own
        raise InputError(f"{path} is no file of plain weights: {type(error).__name__}: {error}") from error
    return found


def fill_strictly(model: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Put every weight of a file into a model; older transformers saved `position_ids`, which are no weights.

    Raises:
        InputError: a weight is missing, unknown or of another shape.
    """
    wanted = {key: tensor for key, tensor in weights.items() if not key.endswith("embeddings.position_ids")}
    try:
        model.load_state_dict(wanted)
    except RuntimeError as error:
        raise InputError(f"{path} does not fit: {error}") from error
    model.eval()


def in_batches(texts: Sequence[str], known: Mapping[str, object], size: int) -> Iterator[list[str]]:
    """Texts not yet known, each once, the longest first so that a batch pads little."""
    new = sorted({text for text in texts if text not in known}, key=lambda text: (-len(text), text))
    for start in range(0, len(new), size):
        yield new[start : start + size]
