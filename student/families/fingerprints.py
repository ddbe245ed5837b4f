"""Fingerprint of a base, from its architecture and a sample of every weight; it does not depend on the format.

An adapter belongs to a model, not to a folder: an original checkpoint and its conversion by `medalign student convert`
are the same base. So file names, tensor names, lossless changes of precision and the rows added for `<image>` do not
count. Only the first values of every tensor are read, which avoids a pass over 15 GB at each start.
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
"""Values of each tensor that are read: 8 KiB in half precision."""

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
"""Configuration that affects a forward pass; widths follow from the weights' shapes. The fields are listed here because
those of transformers' classes change between releases."""

Sampled = tuple[tuple[int, ...], Tensor]
"""Shape and first values of a tensor."""


def fingerprint_original(checkpoint: OriginalCheckpoint) -> str:
    """Fingerprint of an original checkpoint, loaded in its stored precision: SHA-256 in hex."""
    config = checkpoint.config
    return _fingerprint(config, _original_samples(checkpoint))


def fingerprint_folder(files: Iterable[Path], config: LlavaConfig) -> str:
    """Fingerprint of a folder in transformers' format: SHA-256 in hex.

    Args:
        files: the files that are loaded (bases.weight_files), including W of an exported student.
        config: the folder's configuration.
    """
    return _fingerprint(config, _stored_samples(files))


def _fingerprint(config: LlavaConfig, samples: Iterable[Sampled]) -> str:
    architecture = {
        "llava": _fields(config, LLAVA_FIELDS),
        "text": _fields(config.text_config, TEXT_FIELDS),
        "vision": _fields(config.vision_config, VISION_FIELDS),
    }
    digest = hashlib.sha256(json.dumps(architecture, sort_keys=True).encode())
    # A set, because some formats store a tied table twice; sorted, because the order differs between formats.
    for tensor in sorted({_digest(shape, values) for shape, values in samples}):
        digest.update(tensor)
    return digest.hexdigest()


def _fields(config: Any, names: Iterable[str]) -> dict[str, Any]:
    return {name: getattr(config, name, None) for name in names}


def _digest(shape: tuple[int, ...], values: Tensor) -> bytes:
    """Digest of the values as float32, so that the same values in a wider precision have the same digest."""
    return hashlib.sha256(f"{list(shape)} ".encode() + values.float().numpy().tobytes()).digest()


def _first(tensor: Tensor) -> Tensor:
    return tensor.reshape(-1)[:SAMPLE]


def _original_samples(checkpoint: OriginalCheckpoint) -> Iterator[Sampled]:
    """Yield each tensor in the precision and shape that it is loaded in."""
    with ExitStack() as stack:
        files = {tensor.file for tensor in checkpoint.tensors.values()}
        weights = {file: stack.enter_context(open_weights(file)) for file in sorted(files)}
        for key, tensor in checkpoint.tensors.items():
            values = _first(weights[tensor.file].read(checkpoint.names[key]))
            yield checkpoint.loaded_shape(key), values.to(checkpoint.dtype)


def _stored_samples(files: Iterable[Path]) -> Iterator[Sampled]:
    for file in files:
        with open_weights(file) as weights:
            for name in weights.names:
                tensor = weights.read(name)
                yield tuple(tensor.shape), _first(tensor)
