"""The parts of a student and the names of their parameters, with and without peft's wrappers."""

import re
from typing import Any, Literal

from ..alignment.aligned_student import ROTATION_PREFIX
from ..compat.peft import base_weight_name, is_lora_weight, saved_lora_name

Part = Literal["language_model", "projector", "vision_tower", "rotation", "teacher_projection", "query_experts"]

MODULES: dict[Part, str] = {
    "language_model": "language_model",
    "projector": "multi_modal_projector",
    "vision_tower": "vision_tower",
}
"""Module of each part inside transformers' Llava."""

TEACHER_PROJECTION: Part = "teacher_projection"
"""The projection of the teacher's features, which is outside of the Llava."""

QUERY_EXPERTS: Part = "query_experts"
"""The experts of MoE-Q, which are outside of the Llava too."""

WHOLE_PARTS: tuple[Part, ...] = (*MODULES, TEACHER_PROJECTION, QUERY_EXPERTS)
"""Parts whose weights can be trained whole, each in a file of its own."""


def part_of(name: str) -> Part:
    """Return the part that a parameter of an `AlignedStudent` belongs to."""
    if name.startswith(ROTATION_PREFIX):
        return "rotation"
    if name.startswith(f"{TEACHER_PROJECTION}."):
        return TEACHER_PROJECTION
    if name.startswith(f"{QUERY_EXPERTS}."):
        return QUERY_EXPERTS
    pieces = name.split(".")
    return next((part for part, module in MODULES.items() if module in pieces), "language_model")


def is_lora(name: str) -> bool:
    """Whether a parameter of an `AlignedStudent` is a LoRA matrix."""
    return is_lora_weight(name)


def base_name(name: str) -> str:
    """Name of a base weight in the Llava model, without the prefixes of the student and of peft."""
    return base_weight_name(name.removeprefix("llava."))


def adapter_name(name: str) -> str:
    """Name of a LoRA weight in peft's adapter_model.safetensors."""
    return saved_lora_name(name.removeprefix("llava."))


def feature_layer(config: Any) -> int:
    """Index of the tower layer whose output the projector reads, or of the last one if it reads several.

    Returns 0 for a student that reads the embeddings (hidden state 0).
    """
    return max(_hidden_state_read(config) - 1, 0)


def unused_in_tower(config: Any) -> re.Pattern[str]:
    """Pattern of tower modules after the hidden state that the projector reads; they never get a gradient."""
    layers = config.vision_config.num_hidden_layers
    later = "|".join(str(layer) for layer in range(_hidden_state_read(config), layers)) or "none"
    return re.compile(rf"vision_tower\.(?:.*\.)?(?:layers\.(?:{later})|post_layernorm|head)\.")


def _hidden_state_read(config: Any) -> int:
    """Index of the last hidden state of the tower that the projector reads; 0 is the embeddings."""
    selected, layers = config.vision_feature_layer, config.vision_config.num_hidden_layers
    indices = [selected] if isinstance(selected, int) else selected
    return max(index if index >= 0 else layers + 1 + index for index in indices)
