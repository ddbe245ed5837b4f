"""What is trained, said in one place: which parts of a student, what their parameters are called, and how fast they go.

A student has four parts: the language model, the projector, the vision tower, and the rotation W. The language model
and the tower can have LoRA; the projector and the tower can be trained whole. Whatever is trained is float32.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from torch import nn

from ...errors import SettingsError
from ..alignment.aligned_student import AlignedStudent
from .adapter_folder import add_lora
from .parameter_names import Part, part_of, unused_in_tower


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainableParts:
    """Which parts of the base are trained, and how; W is trained wherever the student has one."""

    language_model: Literal["lora", "none"] = "lora"
    projector: Literal["full", "none"] = "none"
    vision_tower: Literal["lora", "full", "none"] = "none"
    rank: int
    alpha: int
    """LoRA's own scale: updates are multiplied by alpha / rank."""
    dropout: float

    @property
    def with_lora(self) -> list[Part]:
        chosen: dict[Part, str] = {"language_model": self.language_model, "vision_tower": self.vision_tower}
        return [part for part, how in chosen.items() if how == "lora"]

    @property
    def whole(self) -> list[Part]:
        chosen: dict[Part, str] = {"projector": self.projector, "vision_tower": self.vision_tower}
        return [part for part, how in chosen.items() if how == "full"]


@dataclass(frozen=True, kw_only=True, slots=True)
class LearningRates:
    """The highest learning rate of each part."""

    language_model: float
    projector: float
    vision_tower: float
    rotation: float
    lora_b_ratio: float = 1.0
    """Rate of LoRA's B as a multiple of A's (LoRA+, arXiv 2402.12354); 1 is plain LoRA."""


def make_trainable(model: AlignedStudent, parts: TrainableParts, *, base: Path) -> None:
    """Freeze the base and make the chosen parts trainable, in float32.

    Raises:
        SettingsError: nothing is left to train.
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
            "nothing is trained: trainable.language_model, .projector and .vision_tower are all 'none' and "
            "alignment.rotation is 'none' too"
        )


def trainable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Everything that is trained, by its name in the student."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def count_trainable(model: nn.Module) -> dict[Part, int]:
    """Number of trained values in each part; 0 for a frozen one."""
    counts: dict[Part, int] = dict.fromkeys(get_args(Part), 0)
    for name, parameter in trainable_parameters(model).items():
        counts[part_of(name)] += parameter.numel()
    return counts


def parameter_groups(model: nn.Module, rates: LearningRates, weight_decay: float) -> list[dict[str, Any]]:
    """Groups for the optimiser: each part at its own rate.

    Weight decay is for LoRA and for the matrices of parts that are trained whole; W, biases and norms have none.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in trainable_parameters(model).items():
        part = part_of(name)
        rate = getattr(rates, part) * (rates.lora_b_ratio if ".lora_B." in name else 1.0)
        decays = part != "rotation" and parameter.ndim > 1
        groups.setdefault((rate, weight_decay if decays else 0.0), []).append(parameter)
    return [{"params": params, "lr": rate, "weight_decay": decay} for (rate, decay), params in groups.items()]
