"""The original LLaVA format as data: its families, and transformers' names of their tensors.

Facts about three published projects (LLaVA, LLaVA-Med, HuatuoGPT-Vision), whose code is not used.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ....errors import InputError

Rename = tuple[str, str]
"""Prefix of an original name and prefix of transformers' name; the first match applies."""

LLAVA_RENAMES: tuple[Rename, ...] = (
    ("model.vision_tower.vision_tower.vision_model.", "model.vision_tower."),
    ("model.mm_projector.0.", "model.multi_modal_projector.linear_1."),
    ("model.mm_projector.2.", "model.multi_modal_projector.linear_2."),
    ("model.layers.", "model.language_model.layers."),
    ("model.embed_tokens.", "model.language_model.embed_tokens."),
    ("model.norm.", "model.language_model.norm."),
    ("lm_head.", "lm_head."),
)
TOWER_RENAMES: tuple[Rename, ...] = (("vision_model.", "model.vision_tower."),)
"""For a vision folder inside the model folder: a CLIP vision tower, or a full CLIP model."""

TOWER_LEFT_OUT = ("text_model.", "text_projection.", "visual_projection.", "logit_scale")
"""Parts of a full CLIP model that students do not use."""

COMPUTED = (".rotary_emb.inv_freq", ".embeddings.position_ids")
"""Suffixes of buffers that older releases of transformers saved; their values follow from config.json."""

INPUT_TABLE = "model.language_model.embed_tokens.weight"
OUTPUT_TABLE = "lm_head.weight"
TOWER_PREFIX = "model.vision_tower."


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """One architecture of the original format."""

    name: str
    architecture: str
    """Architecture name in config.json."""
    language_model: str
    """transformers' model type of the language model."""
    tokenizer: str
    """transformers' model type whose tokenizer reads the folder's files."""
    template: str
    """Prompt template of the project's inference code."""
    marks: tuple[tuple[str, Any], ...] = ()
    """Values in config.json, any of which identifies this family among those of its architecture; may be empty."""
    rows: int | None = None
    """Vocabulary size of the published language model; with another size the template is a guess. None: not checked."""
    renames: tuple[Rename, ...] = LLAVA_RENAMES

    def knows(self, rows: int) -> bool:
        """Whether a checkpoint with this many rows uses this family's template."""
        return self.rows is None or rows == self.rows

    def fits(self, config: Mapping[str, Any]) -> bool:
        """Whether a config.json belongs to this family."""
        architectures = config.get("architectures")
        if not isinstance(architectures, list) or self.architecture not in architectures:
            return False
        return not self.marks or any(str(config.get(key)).rsplit("/", 1)[-1] == str(value) for key, value in self.marks)


FAMILIES = (
    Family(
        name="LLaVA-Med-1.5",
        architecture="LlavaMistralForCausalLM",
        language_model="mistral",
        tokenizer="llama",
        template="mistral_instruct",
    ),
    Family(
        name="HuatuoGPT-Vision",
        architecture="LlavaQwen2ForCausalLM",
        language_model="qwen2",
        tokenizer="qwen2",
        template="huatuo",
    ),
    Family(
        name="HuatuoGPT-Vision-34B",
        architecture="LlavaLlamaForCausalLM",
        language_model="llama",
        tokenizer="llama",
        template="huatuo",
        marks=(
            ("vocab_size", 64000),
            ("mm_vision_tower", "clip_vit_large_patch14_336"),
        ),  # Yi-1.5; folder name of its tower
    ),
    Family(
        name="LLaVA-1.5",
        architecture="LlavaLlamaForCausalLM",
        language_model="llama",
        tokenizer="llama",
        template="vicuna_v1",
        rows=32000,
    ),
)

KNOWN_TOWERS: dict[str, dict[str, Any]] = {
    "clip-vit-large-patch14-336": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "image_size": 336,
        "patch_size": 14,
        "projection_dim": 768,
        "hidden_act": "quick_gelu",
    },
}
"""CLIP towers whose config.json is missing in the published folders. Tensor shapes are checked against it."""


def find_family(config: Mapping[str, Any]) -> Family | None:
    """The family of a config.json; None if it is not in the original format."""
    return next((family for family in FAMILIES if family.fits(config)), None)


def to_transformers(name: str, renames: Iterable[Rename]) -> str | None:
    """transformers' name of an original tensor; None if no rename matches."""
    return next((new + name.removeprefix(old) for old, new in renames if name.startswith(old)), None)


def to_original(key: str, renames: Iterable[Rename]) -> str:
    """The original name of one of transformers' tensors.

    Raises:
        InputError: the installed transformers has a tensor that the original format does not have.
    """
    name = next((old + key.removeprefix(new) for old, new in renames if key.startswith(new)), None)
    if name is None:
        raise InputError(
            f"the original LLaVA format has no tensor for {key}: the installed transformers is too new. Install a "
            "version that medalign was tested with (`medalign doctor` lists them)"
        )
    return name


def guess_origin(names: Iterable[str]) -> str:
    """Describe a checkpoint by the names of its tensors, for messages."""
    names = list(names)

    def contains(part: str) -> bool:
        return any(part in name for name in names)

    if contains("lora_A") or contains("lora_B"):
        return "a LoRA adapter, not a full model"
    if contains("multi_modal_projector."):
        return "transformers' own Llava format"
    if contains("image_newline"):
        return "LLaVA-1.6 (LLaVA-NeXT), which splits images into tiles and is not supported"
    if not contains("mm_projector."):
        return "a language model without a projector"
    if contains("self_attn.q_norm."):
        return "a LLaVA with Qwen3"
    if contains("self_attn.q_proj.bias"):
        return "a LLaVA with Qwen2, such as HuatuoGPT-Vision (LlavaQwen2ForCausalLM)"
    return (
        "a LLaVA with Mistral or Llama, such as LLaVA-Med-1.5 (LlavaMistralForCausalLM) or LLaVA-1.5 "
        "(LlavaLlamaForCausalLM)"
    )
