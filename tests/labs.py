"""A lab to train in: images, questions with and without them, a store with random targets, a configuration."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from medalign.pipeline.data.manifest import Manifest, ManifestRow
from medalign.pipeline.training.plan import plan_training
from medalign.pipeline.training.settings import Settings
from medalign.pipeline.training.training_plan import TrainingPlan
from medalign.teacher_cache.geometry.patch_grid import PatchGrid
from medalign.teacher_cache.images import image_hash
from stores import pixels_of, write_store
from students import LAYER, write_images, write_tiny_student

QUESTIONS = 22
"""Every fourth has no image; answers have 1 to 7 words."""


def make_lab(folder: Path) -> Path:
    """`student`, `manifest.parquet`, `images` and `store.zarr` in a folder."""
    write_tiny_student(folder / "student")
    paths = write_images(folder / "images", [(24, 24), (30, 20)] * (QUESTIONS // 2))
    rows = []
    for number, path in enumerate(paths):
        seen: dict[str, Any] = {
            "image": path.name,
            "image_hash": image_hash(path.read_bytes()),
            "pixel_hash": pixels_of(number),
            "width": 24,
            "height": 24,
        }
        rows.append(
            ManifestRow(
                **(seen if number % 4 else {}),
                question_id=str(number),
                question="What is it?" if number % 3 else "Is there anything to be seen in this one?",
                answer=" ".join(["noise"] * (1 + number % 7)),
                split="train" if number < QUESTIONS - 4 else "validation",
                data_use="public",
            )
        )
    Manifest.from_rows(rows, folder / "images", "noise").write(folder / "manifest.parquet")
    write_store(folder / "store.zarr", range(QUESTIONS), hashes=hashes_of(paths), grid=PatchGrid(3, 3), shard_rows=8)
    return folder


def hashes_of(paths: Sequence[Path]) -> list[str]:
    """Image hashes of files."""
    return [image_hash(path.read_bytes()) for path in paths]


def lab_settings(lab: Path, **training: Any) -> dict[str, Any]:
    """Settings of a short run with every loss; `training` are keys of that section."""
    short = {
        "max_steps": 8,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "logging_steps": 1,
        "dataloader_num_workers": 0,
    }
    return {
        "student": {"path": str(lab / "student"), "template": "vicuna_v1"},
        "data": {"manifest": str(lab / "manifest.parquet"), "store": str(lab / "store.zarr")},
        "alignment": {"layer": LAYER, "alpha": 1.0, "beta": 1.0},
        "lora": {"r": 2, "lora_dropout": 0.1},
        "training": {"learning_rate": 1e-2, "device": "cpu", "save_steps": 2, **short, **training},
    }


def write_config(path: Path, settings: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(settings))
    return path


def plan_with_weights(settings: Settings, *, scale: float) -> TrainingPlan:
    """The plan of a trained student: neither W nor LoRA's B is zero, so every trained parameter has a gradient."""
    plan = plan_training(settings)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, value in plan.student.model.named_parameters():
            if "lora_B" in name or "rotation" in name:
                value.copy_(scale * torch.randn(value.shape, generator=generator))
    return plan
