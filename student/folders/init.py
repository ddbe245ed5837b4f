"""Creating a student: a causal language model and a vision tower become one transformers Llava folder.

The weights of both are kept and the projector between them is random, so the student still needs pretraining.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import CLIPVisionModel, GenerationConfig, LlavaConfig, LlavaForConditionalGeneration
from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

from ... import __version__
from ...atomic import write_whole
from ...progress import Progress
from ..inputs.image_processing import CLIP_MEAN, CLIP_STD
from ..quiet_transformers import quiet_transformers
from .init_parts import add_tokens, read_language_model, read_tower, tiny_tower
from .model_folder import check_new_folder, new_folder, save_llava

RECORD_NAME = "medalign-init.json"
FEATURE_LAYER = -2
"""LLaVA reads the hidden states before the tower's last layer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InitReport:
    """What was created, as it is written next to the model."""

    llm: str
    """Folder or file name of the language model, without its path."""
    vision: str
    seed: int
    image_tokens: int
    image_token_id: int
    pad_token_id: int
    parameters: dict[str, int]
    dtype: str
    medalign: str = __version__

    def summary(self) -> dict[str, Any]:
        """The report as JSON-able values."""
        return asdict(self)


def init_student(
    llm: Path,
    vision: Path | Literal["tiny"],
    out: Path,
    *,
    image_tokens: int = 576,
    seed: int = 0,
    gguf_file: str | None = None,
    progress: Progress,
) -> InitReport:
    """Write a Llava folder that `LlavaForConditionalGeneration.from_pretrained` loads strictly.

    Args:
        llm: folder of any transformers causal LM with its tokenizer, a GGUF file, or a folder with one.
        vision: folder of a CLIP model or CLIP vision tower, or `tiny` for a small random tower.
        out: folder to create; must not exist, or be empty.
        image_tokens: number of patches of the tower's grid; a perfect square.
        seed: seed of the random projector and of the `tiny` tower.
        gguf_file: which GGUF file in the folder `llm` to read, if there are several.
        progress: reports each step.

    Raises:
        InputError: `llm` or `vision` is not such a folder, or `out` is not empty.
        SettingsError: the tower has a different number of image tokens.
    """
    check_new_folder(out)
    progress.start("creating a student", 4)
    with torch.random.fork_rng(devices=[]), quiet_transformers():
        torch.manual_seed(seed)
        tower = tiny_tower(image_tokens) if vision == "tiny" else read_tower(Path(vision), image_tokens)
        progress.advance()
        language, tokenizer = read_language_model(llm, gguf_file)
        progress.advance()
        image_token_id = add_tokens(language, tokenizer)
        model = _join(language, tower, tokenizer, image_token_id, image_tokens)
        progress.advance()
        report = InitReport(
            llm=llm.name,
            vision="tiny" if vision == "tiny" else Path(vision).name,
            seed=seed,
            image_tokens=image_tokens,
            image_token_id=image_token_id,
            pad_token_id=tokenizer.pad_token_id,
            parameters=_count_parameters(model),
            dtype=str(language.dtype).removeprefix("torch."),
        )
        _write(model, tokenizer, report, out)
        progress.advance()
    return report


def _join(
    language: Any, tower: CLIPVisionModel, tokenizer: Any, image_token_id: int, image_tokens: int
) -> LlavaForConditionalGeneration:
    """Join the parts to a Llava without copying weights."""
    text_config = language.config
    # Quantization of the GGUF file, which no longer applies to the dequantized weights.
    text_config.__dict__.pop("quantization_config", None)
    for part in (text_config, tower.config):
        part._name_or_path = ""  # a path of this machine
    config = LlavaConfig(
        text_config=text_config,
        vision_config=tower.config,
        image_token_index=image_token_id,
        image_seq_length=image_tokens,
        vision_feature_select_strategy="default",
        vision_feature_layer=FEATURE_LAYER,
        tie_word_embeddings=text_config.tie_word_embeddings,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    projector = _random_projector(config, tower, language)
    with torch.device("meta"):
        model = LlavaForConditionalGeneration(config)
    model.model.vision_tower = tower.to(language.dtype)
    model.model.multi_modal_projector = projector.to(language.dtype)
    model.model.language_model = language.base_model
    model.lm_head = language.get_output_embeddings()
    config.dtype = language.dtype
    end = language.generation_config.eos_token_id
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id if end is None else end,
        pad_token_id=tokenizer.pad_token_id,
    )
    return model


@torch.no_grad()
def _random_projector(config: LlavaConfig, tower: CLIPVisionModel, language: Any) -> LlavaMultiModalProjector:
    """Create a random projector whose image tokens have the root mean square of the text embeddings.

    The scale of hidden states differs between towers by orders of magnitude. Image tokens that are much larger than
    text embeddings would dominate the residual stream.
    """
    projector = LlavaMultiModalProjector(config).float()
    for linear in (projector.linear_1, projector.linear_2):
        torch.nn.init.normal_(linear.weight, std=linear.in_features**-0.5)
        torch.nn.init.zeros_(linear.bias)
    side = tower.config.image_size
    hidden = tower.float().eval()(torch.randn(1, 3, side, side), output_hidden_states=True).hidden_states
    tokens = projector(hidden[FEATURE_LAYER][:, 1:])
    words = language.get_input_embeddings().weight.float()
    projector.linear_2.weight *= words.square().mean().sqrt() / tokens.square().mean().sqrt()
    return projector


def _write(model: LlavaForConditionalGeneration, tokenizer: Any, report: InitReport, out: Path) -> None:
    with new_folder(out) as folder:
        save_llava(model, tokenizer, mean=CLIP_MEAN, std=CLIP_STD, template="chat", folder=folder)
        write_whole(folder / RECORD_NAME, json.dumps(report.summary(), indent=2) + "\n")


def _count_parameters(model: LlavaForConditionalGeneration) -> dict[str, int]:
    parts = {
        "vision_tower": model.model.vision_tower,
        "projector": model.model.multi_modal_projector,
        "language_model": model.model.language_model,
    }
    return {name: sum(weight.numel() for weight in part.parameters()) for name, part in parts.items()}
