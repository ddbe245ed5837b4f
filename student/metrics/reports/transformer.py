"""Strict loading of the metrics' transformers from local folders, without remote code or pickled objects."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedTokenizerBase

from ....errors import InputError
from ....plain_text import counted, quoted_error
from ...families.base_files import check_no_adapter
from ...quiet_transformers import quiet_transformers

LONGEST = 512  # tokens, including special tokens; maximum of all encoders here


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a folder.

    Raises:
        InputError: there is no tokenizer that transformers can read.
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
    """Load a model of one of transformers' Auto classes; every weight that it uses must be in the folder.

    Raises:
        InputError: unreadable, weights are missing or of the wrong shape, or there are adapter files in the folder.
    """
    check_no_adapter(folder)
    try:
        with quiet_transformers():
            model, loaded = kind.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False, weights_only=True, output_loading_info=True
            )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise InputError(f"{folder} has no model that transformers can read: {error}") from error
    missing = sorted(key for key in loaded["missing_keys"] if not key.startswith("pooler."))  # not used by any metric
    if missing or loaded["mismatched_keys"]:
        problem = (
            f"{counted(len(missing), 'weight is', 'weights are')} missing, first {missing[0]}"
            if missing
            else "weights of the wrong shape"
        )
        raise InputError(f"the model in {folder} does not match its config.json: {problem}")
    return model.eval()


def empty_model(folder: Path) -> Any:
    """Create the encoder that a folder's config.json describes, without loading weights.

    Raises:
        InputError: there is no config.json that transformers supports.
    """
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        return AutoModel.from_config(config, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{folder} has no config.json that transformers supports: {error}") from error


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        InputError: missing or unreadable.
    """
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    return values


def read_weights(path: Path) -> dict[str, Any]:
    """Load a file of torch.save that contains only tensors and plain containers, without running code.

    Raises:
        InputError: missing, unreadable or containing other objects.
    """
    try:
        weights: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds of errors for invalid files
        raise InputError(f"{path} is not a file of plain weights: {quoted_error(error)}") from error
    return weights


def fill_strictly(model: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Load every weight of a file into a model, except `position_ids`, which older transformers saved.

    Raises:
        InputError: a weight is missing, unknown or of the wrong shape.
    """
    state = {key: tensor for key, tensor in weights.items() if not key.endswith("embeddings.position_ids")}
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise InputError(f"{path} does not match the model: {error}") from error
    model.eval()


def in_batches(texts: Sequence[str], known: Mapping[str, object], size: int) -> Iterator[list[str]]:
    """Yield batches of unknown texts, each once, longest first to reduce padding."""
    new = sorted({text for text in texts if text not in known}, key=lambda text: (-len(text), text))
    for start in range(0, len(new), size):
        yield new[start : start + size]
