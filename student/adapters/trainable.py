"""What is trained: the parts of a student, their parameters, and their learning rates.

A student has four parts: the language model, the projector, the vision tower, and the rotation W. The language model
and the tower can have LoRA; the projector and the tower can be fully trained. A projection of the teacher's features
and query experts, if there are any, are always trained. All trained parameters are float32.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ...choices import TrainLanguageModel, TrainProjector, TrainVisionTower
from ...errors import SettingsError
from ..alignment.aligned_student import AlignedStudent
from .adapter_folder import add_lora
from .parameter_names import MODULES, Part, part_of, unused_in_tower


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainableParts:
    """Which parts of the base are trained, and how; W is always trained if the student has one."""

    language_model: TrainLanguageModel = "lora"
    projector: TrainProjector = "none"
    vision_tower: TrainVisionTower = "none"
    rank: int
    alpha: int
    """Scale of LoRA: updates are multiplied by alpha / rank."""
    dropout: float

    @property
    def with_lora(self) -> list[Part]:
        modes: dict[Part, str] = {"language_model": self.language_model, "vision_tower": self.vision_tower}
        return [part for part, mode in modes.items() if mode == "lora"]

    @property
    def whole(self) -> list[Part]:
        modes: dict[Part, str] = {"projector": self.projector, "vision_tower": self.vision_tower}
        return [part for part, mode in modes.items() if mode == "full"]


@dataclass(frozen=True, kw_only=True, slots=True)
class LearningRates:
    """Peak learning rate of each part."""

    language_model: float
    projector: float
    vision_tower: float
    rotation: float
    teacher_projection: float = 0.0
    """0 without such a projection."""
    query_experts: float = 0.0
    """0 without MoE-Q."""
    lora_b_ratio: float = 1.0
    """Learning rate of LoRA's B as a multiple of A's (LoRA+, arXiv 2402.12354); 1 is plain LoRA."""


def make_trainable(model: AlignedStudent, parts: TrainableParts, *, base: Path) -> None:
    """Freeze the base and make the chosen parts trainable, in float32.

    Raises:
        SettingsError: nothing is trainable.
    """
    model.llava.requires_grad_(False)
    if parts.with_lora:
        add_lora(model, base=base, rank=parts.rank, alpha=parts.alpha, dropout=parts.dropout, parts=parts.with_lora)
    unused = unused_in_tower(model.config)
    for name, parameter in model.named_parameters():
        if part_of(name) in parts.whole and not unused.search(name):
            parameter.data = parameter.data.float()
            parameter.requires_grad_(True)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise SettingsError(
            "there is nothing to train: trainable.language_model, trainable.projector, trainable.vision_tower and "
            "alignment.rotation are all 'none'. Set one of them to another value"
        )


def trainable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """All trained parameters by their name in the student."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def count_trainable(model: nn.Module) -> dict[Part, int]:
    """Number of trained values in each part; 0 for a frozen part of any student."""
    counts: dict[Part, int] = dict.fromkeys((*MODULES, "rotation"), 0)
    for name, parameter in trainable_parameters(model).items():
        part = part_of(name)
        counts[part] = counts.get(part, 0) + parameter.numel()
    return counts


def parameter_groups(model: nn.Module, rates: LearningRates, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups for the optimizer, with one learning rate for each part.

    Weight decay applies to LoRA and to the matrices of fully trained parts, but not to W, biases and norms.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in trainable_parameters(model).items():
        part = part_of(name)
        rate = getattr(rates, part) * (rates.lora_b_ratio if ".lora_B." in name else 1.0)
        decays = part != "rotation" and parameter.ndim > 1
        groups.setdefault((rate, weight_decay if decays else 0.0), []).append(parameter)
    return [{"params": params, "lr": rate, "weight_decay": decay} for (rate, decay), params in groups.items()]
