"""The demo's sizes, its arms, and the settings of their runs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ... import __version__
from ...choices import RotationMode
from ..align.align_settings import AlignSettings
from ..training.settings import Settings

GRID = "8x8"
LAYER = 3
BASE, ALIGNED = "student", "aligned"
"""Folders of the student base, and of the adapter of the label-free stage."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoPlan:
    """Sizes of the demo; with the version they determine its result."""

    seed: int
    phantoms: int = 400
    """With a shift; the arms are trained on and asked about these."""
    anchors: int = 300
    """Without a shift, for the label-free stage."""
    shift: float = 0.7
    align_steps: int = 300
    minimum_r2: float = 0.5
    """Smallest R^2 of the translation with which the label-free stage trains."""
    minimum_skill: float | None = 0.3
    """The same for its skill against random features."""
    steps: int = 100
    batch_size: int = 16
    learning_rate: float = 2e-3
    alpha: float = 1.0
    beta: float = 0.1
    version: str = __version__


@dataclass(frozen=True, kw_only=True, slots=True)
class Arm:
    """One way to train a student on the same questions."""

    name: str
    title: str
    student: str = BASE
    """Folder of the base or adapter that it starts from."""
    has_losses: bool = False
    """Whether L_vis and L_att are trained."""
    rotation: RotationMode = "none"


ARMS = (
    Arm(name="lora", title="LoRA"),
    Arm(name="medalign", title="MEDALIGN", has_losses=True, rotation="full"),
    Arm(name="align-lora", title="align + LoRA", student=ALIGNED),
)
"""The first one is what the others are compared with."""


def arm_settings(arm: Arm, out: Path, plan: DemoPlan) -> Settings:
    """The settings of an arm's training run."""
    values: dict[str, Any] = {
        "student": {"path": str(out / arm.student), "template": "plain"},
        "data": {
            "manifest": str(out / "phantoms" / "manifest.parquet"),
            "store": str(out / "store.zarr"),
            "teacher": "phantom-tiny",
        },
        "alignment": {
            "layer": LAYER,
            "alpha": plan.alpha if arm.has_losses else 0.0,
            "beta": plan.beta if arm.has_losses else 0.0,
            "rotation": arm.rotation,
        },
        "lora": {"r": 16, "lora_alpha": 16},
        "training": {
            "max_steps": plan.steps,
            "per_device_train_batch_size": plan.batch_size,
            "gradient_accumulation_steps": 1,
            "learning_rate": plan.learning_rate,
            "logging_steps": 25,
            "save_steps": 50,
            "dataloader_num_workers": 0,
            "seed": plan.seed,
            "device": "cpu",
        },
    }
    return Settings.model_validate(values)


def align_settings(out: Path, plan: DemoPlan) -> AlignSettings:
    """The settings of the label-free stage: training images as targets, without their questions."""
    manifest = str(out / "phantoms" / "manifest.parquet")
    values: dict[str, Any] = {
        "student": {"path": str(out / BASE), "template": "plain"},
        "data": {
            "store": str(out / "store.zarr"),
            "teacher": "phantom-tiny",
            "targets": manifest,
            "targets_split": "train",
            "anchors": manifest,
            "anchors_split": "anchors",
        },
        "translation": {"minimum_r2": plan.minimum_r2, "minimum_skill": plan.minimum_skill},
        "trainable": {"vision_tower": "full"},
        "training": {
            "steps": plan.align_steps,
            "learning_rate": 5e-4,
            "dataloader_num_workers": 0,
            "seed": plan.seed,
            "device": "cpu",
        },
        "report": {"images": 0},  # the demo's own table has the answers
    }
    return AlignSettings.model_validate(values)
