"""What a base is known by: its architecture and a sample of every weight, the same in each format that holds them.

An adapter fits a model, not a folder: an original checkpoint and what `medalign student convert` makes of it are one
base. So neither files, names of tensors, precision that changes no value, nor the rows that a table has for `<image>`
count. Read are the first values of every tensor, which is what loading reads anyway: no pass over 15 GB at each start.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import LlavaConfig

from .original import OriginalCheckpoint
from .original.weight_index import open_weights

SAMPLE = 4096
"""Values of each tensor that are looked at: 8 KiB in half precision."""

LLAVA_FIELDS = ("image_token_id", "vision_feature_layer", "vision_feature_select_strategy", "projector_hidden_act")
TEXT_FIELDS = (
    "model_type",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "hidden_act",
    "rms_norm_eps",
    "rope_parameters",
    "sliding_window",
)
VISION_FIELDS = (
    "num_hidden_layers",
    "num_attention_heads",
    "hidden_act",
    "layer_norm_eps",
    "image_size",
    "patch_size",
)
"""What a forward pass takes from the configuration; widths follow from the weights' shapes. A list of our own, because
the fields of transformers' classes change with its releases."""

Sampled = tuple[tuple[int, ...], Tensor]
"""Shape and first values of a tensor."""


def fingerprint_original(checkpoint: OriginalCheckpoint) -> str:
    """Of an original checkpoint as it is loaded in its own precision: SHA-256 in hex."""
    config = checkpoint.config
    return _fingerprint(config, _original_samples(checkpoint))


def fingerprint_folder(files: Iterable[Path], config: LlavaConfig) -> str:
    """Of a folder in transformers' format: SHA-256 in hex.

    Args:
        files: what is loaded of it (bases.weight_files), an exported student's W included.
        config: its own.
    """
    return _fingerprint(config, _stored_samples(files))


def _fingerprint(config: LlavaConfig, samples: Iterable[Sampled]) -> str:
    meaning = {
        "llava": _fields(config, LLAVA_FIELDS),
        "text": _fields(config.text_config, TEXT_FIELDS),
        "vision": _fields(config.vision_config, VISION_FIELDS),
    }
    digest = hashlib.sha256(json.dumps(meaning, sort_keys=True).encode())
    # A set: some formats store a tied table twice. Sorted: files and names have another order in each format.
    for tensor in sorted({_digest(shape, values) for shape, values in samples}):
        digest.update(tensor)
    return digest.hexdigest()


def _fields(config: Any, names: Iterable[str]) -> dict[str, Any]:
    return {name: getattr(config, name, None) for name in names}


def _digest(shape: tuple[int, ...], values: Tensor) -> bytes:
    """The values as float32, so that a wider copy of the same numbers counts as the same."""
    return hashlib.sha256(f"{list(shape)} ".encode() + values.float().numpy().tobytes()).digest()


def _first(tensor: Tensor) -> Tensor:
    return tensor.reshape(-1)[:SAMPLE]


def _original_samples(checkpoint: OriginalCheckpoint) -> Iterator[Sampled]:
    """Each tensor in the precision and the shape that it is loaded in."""
    with ExitStack() as opened:
        files = {tensor.file for tensor in checkpoint.tensors.values()}
        weights = {file: opened.enter_context(open_weights(file)) for file in sorted(files)}
        for key, tensor in checkpoint.tensors.items():
            values = _first(weights[tensor.file].read(checkpoint.names[key]))
            yield checkpoint.loaded_shape(key), values.to(checkpoint.dtype)


def _stored_samples(files: Iterable[Path]) -> Iterator[Sampled]:
    for file in files:
        with open_weights(file) as weights:
            for name in weights.names:
                tensor = weights.read(name)
                yield tuple(tensor.shape), _first(tensor)
