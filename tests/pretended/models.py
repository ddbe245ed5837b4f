"""Full-width students without values, as medalign loads and prepares them, and batches with values."""

from pathlib import Path
from typing import Any

import torch
from medalign.student.adapters.trainable import TrainableParts, make_trainable
from medalign.student.alignment.aligned_student import AlignedStudent
from medalign.student.inputs.batch_layout import BatchLayout
from transformers import CLIPVisionConfig, LlavaConfig, LlavaForConditionalGeneration, MistralConfig, Qwen2Config
from transformers.initialization import no_init_weights

LLAVA_MED = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 32001,
}
HUATUO = {
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152064,
}
PATCHES = 576


def llava_config(name: str, depth: int | None, tower_depth: int) -> LlavaConfig:
    """The config of a 7B student, with fewer decoder layers where `depth` says so, and this many of the tower."""
    sizes = LLAVA_MED if name == "llava-med" else HUATUO
    sizes = sizes | ({} if depth is None else {"num_hidden_layers": depth})
    make = MistralConfig if name == "llava-med" else Qwen2Config
    more = {"sliding_window": None} if name == "llava-med" else {}
    text = make(**sizes, max_position_embeddings=32768, bos_token_id=1, eos_token_id=2, pad_token_id=0, **more)
    vision = CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=tower_depth,
        num_attention_heads=16,
        image_size=336,
        patch_size=14,
        projection_dim=768,
    )
    return LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=sizes["vocab_size"] - 1,
        image_seq_length=PATCHES,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )


def pretended_student(
    name: str,
    *,
    depth: int | None,
    layers: tuple[int, ...],
    tower_depth: int = 24,
    rotation: str = "full",
    dtype: torch.dtype = torch.bfloat16,
    parts: TrainableParts | None = None,
) -> AlignedStudent:
    """Inside a PretendedGpu: a student on the CPU, as `open_student` and `make_trainable` leave it."""
    config = llava_config(name, depth, tower_depth)
    config.name_or_path = name
    with no_init_weights():  # as where weights are loaded
        llava = LlavaForConditionalGeneration._from_config(config, dtype=dtype, attn_implementation="sdpa")
    llava.requires_grad_(False)
    llava.generation_config.suppress_tokens = [config.image_token_id]
    rows = config.text_config.vocab_size - 1
    model = AlignedStudent(llava.eval(), layers=layers, rotation=rotation, patches=PATCHES, known_rows=rows)
    if parts is not None:
        make_trainable(model, parts, base=Path(name))
    return model


def batch_of(
    model: AlignedStudent, *, samples: int, length: int, answer: int, images: int, gram: bool, ragged: bool = True
) -> dict[str, Any]:
    """Without modes: what `AlignmentCollator` gives, on the CPU; every second sample is shorter if `ragged`."""
    ids = torch.randint(10, 1000, (samples, length))
    labels, mask = torch.full_like(ids, -100), torch.ones_like(ids)
    for row in range(samples):
        ids[row, 5 : 5 + images * PATCHES] = model.image_token_id
        end = length - 3 * (row % 2) * ragged
        labels[row, end - answer : end] = ids[row, end - answer : end]
        mask[row, end:] = 0
    batch = {"input_ids": ids, "labels": labels, "attention_mask": mask}
    layout = BatchLayout.of(ids, mask, labels, image_token_id=model.image_token_id, patches=PATCHES)
    if images:
        batch["pixel_values"] = torch.randn(samples * images, 3, 336, 336)
        batch["E_a"] = torch.rand(samples * images, PATCHES)
        targets = torch.rand(samples * images, PATCHES, PATCHES if gram else 1024)
        batch["S" if gram else "E_v"] = targets
    return {**batch, "layout": layout}
