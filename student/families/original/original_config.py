"""config.json of an original checkpoint as transformers' LlavaConfig."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import CONFIG_MAPPING, CLIPVisionConfig, LlavaConfig, PreTrainedConfig

from ....errors import InputError
from ...file_errors import is_file, read_object, unfinished_run
from .original_format import Family

NEEDED = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
OLD_NAMES = ("rope_theta", "rope_scaling")
"""Fields that the language models' classes take although they now keep them under other names."""

PROJECTOR = "mlp2x_gelu"


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a folder.

    Raises:
        InputError: there is none, or it is no JSON object.
    """
    path = folder / "config.json"
    if not is_file(path):
        raise InputError(f"{folder} is not a model folder: it has no config.json{unfinished_run(folder)}")
    return read_object(path)


def check_supported(folder: Path, config: Mapping[str, Any]) -> None:
    """Refuse what would give another model than the one that was trained.

    Raises:
        InputError: all that is not supported, in one message.
    """
    expected: dict[str, tuple[Any, Any]] = {
        "mm_projector_type": (config.get("mm_projector_type", "linear"), PROJECTOR),
        "mm_vision_select_feature": (config.get("mm_vision_select_feature", "patch"), "patch"),
        "mm_use_im_start_end": (bool(config.get("mm_use_im_start_end", False)), False),
        "mm_use_im_patch_token": (bool(config.get("mm_use_im_patch_token", False)), False),
        "quantization_config": (config.get("quantization_config"), None),
    }
    problems = [
        f"{name} is {found!r}, only {good!r} is read" for name, (found, good) in expected.items() if found != good
    ]
    problems += [f"{name} is missing" for name in NEEDED if not isinstance(config.get(name), int)]
    if not isinstance(config.get("mm_vision_select_layer", -2), int):
        problems.append(f"mm_vision_select_layer is {config['mm_vision_select_layer']!r}, not a layer's number")
    if problems:
        raise InputError(f"{folder}/config.json is not supported:\n" + "\n".join(f"  {line}" for line in problems))


def text_config(config: Mapping[str, Any], family: Family) -> PreTrainedConfig:
    """The language model's own fields of an original config.json."""
    kind = CONFIG_MAPPING[family.language_model]
    common = {field.name for field in dataclasses.fields(PreTrainedConfig)} - {"tie_word_embeddings"}
    own = {field.name for field in dataclasses.fields(kind)} - common
    tokens = {"bos_token_id", "eos_token_id", "pad_token_id"}
    wanted = own | tokens | set(OLD_NAMES)
    return kind(**{name: value for name, value in config.items() if name in wanted})


def llava_config(
    text: PreTrainedConfig, vision: CLIPVisionConfig, *, image_token_id: int, feature_layer: int
) -> LlavaConfig:
    """The configuration of the same model in transformers' format."""
    return LlavaConfig(
        text_config=text,
        vision_config=vision,
        image_token_index=image_token_id,
        image_seq_length=(vision.image_size // vision.patch_size) ** 2,
        vision_feature_layer=feature_layer,
        vision_feature_select_strategy="default",
        projector_hidden_act="gelu",
        multimodal_projector_bias=True,
        tie_word_embeddings=text.tie_word_embeddings,
        bos_token_id=text.bos_token_id,
        eos_token_id=text.eos_token_id,
        pad_token_id=text.pad_token_id,
    )
