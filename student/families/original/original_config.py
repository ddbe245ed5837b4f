"""Conversion of an original checkpoint's config.json to transformers' LlavaConfig."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import CONFIG_MAPPING, CLIPVisionConfig, LlavaConfig, PreTrainedConfig

from ....errors import InputError
from ....plain_text import as_typed
from ....suggestions import spelling, to_pass
from ...file_errors import is_file, read_object, unfinished_run
from .original_format import Family

REQUIRED_FIELDS = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
OLD_NAMES = ("rope_theta", "rope_scaling")
"""Fields that the language models' config classes accept but now store under other names."""

PROJECTOR = "mlp2x_gelu"


def read_config(folder: Path) -> dict[str, Any]:
    """Read config.json of a folder.

    Raises:
        InputError: there is no config.json, or it is not a JSON object.
    """
    path = folder / "config.json"
    if not is_file(path):
        if is_file(folder / "medalign.json"):
            raise InputError(
                f"{folder} is an adapter, not a model folder. To start from it, merge it into its base: "
                f"`medalign student export {as_typed(folder)} --out MODEL`, and pass MODEL"
            )
        if not folder.exists():
            raise InputError(f"{folder} is not a model folder: it does not exist{spelling(folder, _is_student)}")
        advice = unfinished_run(folder) or f"; {to_pass(folder, _is_student, 'pass a folder that has config.json')}"
        raise InputError(f"{folder} is not a model folder: it has no config.json{advice}")
    return read_object(path)


def _is_student(folder: Path) -> bool:
    """Whether a folder looks like a model or an adapter, which most options for students accept too."""
    return any((folder / name).is_file() for name in ("config.json", "medalign.json"))


def check_supported(folder: Path, config: Mapping[str, Any]) -> None:
    """Refuse settings with which the loaded model would differ from the trained model.

    Raises:
        InputError: lists everything that is not supported.
    """
    settings: dict[str, tuple[Any, Any]] = {
        "mm_projector_type": (config.get("mm_projector_type", "linear"), PROJECTOR),
        "mm_vision_select_feature": (config.get("mm_vision_select_feature", "patch"), "patch"),
        "mm_use_im_start_end": (bool(config.get("mm_use_im_start_end", False)), False),
        "mm_use_im_patch_token": (bool(config.get("mm_use_im_patch_token", False)), False),
        "quantization_config": (config.get("quantization_config"), None),
    }
    problems = [
        f"{name} is {value!r}, but only {supported!r} is supported"
        for name, (value, supported) in settings.items()
        if value != supported
    ]
    problems += [f"{name} is missing" for name in REQUIRED_FIELDS if not isinstance(config.get(name), int)]
    if not isinstance(config.get("mm_vision_select_layer", -2), int):
        problems.append(f"mm_vision_select_layer is {config['mm_vision_select_layer']!r}, not a layer index")
    if problems:
        raise InputError(f"{folder}/config.json is not supported:\n" + "\n".join(f"  {line}" for line in problems))


def text_config(config: Mapping[str, Any], family: Family) -> PreTrainedConfig:
    """The language model's fields of an original config.json."""
    kind = CONFIG_MAPPING[family.language_model]
    common = {field.name for field in dataclasses.fields(PreTrainedConfig)} - {"tie_word_embeddings"}
    own = {field.name for field in dataclasses.fields(kind)} - common
    tokens = {"bos_token_id", "eos_token_id", "pad_token_id"}
    names = own | tokens | set(OLD_NAMES)
    return kind(**{name: value for name, value in config.items() if name in names})


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
