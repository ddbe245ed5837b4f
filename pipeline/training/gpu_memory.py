"""Whether a training step fits a GPU, here or elsewhere, and what to change where it does not."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from ...errors import SettingsError
from ...student.adapters.trainable import TrainableParts
from ...student.alignment.aligned_student import AlignedStudent
from ...student.training.step_memory import MemoryEstimate, StepShape, estimate_memory
from .settings import Settings

GIB = 2**30
RESERVE = GIB
"""Left for the CUDA context, kernels' workspaces and the allocator's fragments, which no estimate counts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """A GPU's memory."""

    name: str
    memory: int
    """Bytes."""


def parse_card(text: str) -> Card:
    """A card by its memory, such as 24GB; a vendor's GB are GiB.

    Raises:
        SettingsError: it is no size.
    """
    match = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,6})?) ?(GB|GiB|G)?", text, re.IGNORECASE)
    if match is None or float(match[1]) == 0:
        raise SettingsError(f"--card takes a GPU's memory with its unit GB, for example 24GB or 80GB, not {text!r}")
    if match[2] is None:
        raise SettingsError(f"--card {text} has no unit: give GB, as in {text}GB")
    return Card(name=f"a card of {match[1]} GiB", memory=round(float(match[1]) * GIB))


def present_card(device: str) -> Card | None:
    """The GPU that a run would use; None where it uses none."""
    if not device.startswith("cuda"):
        return None
    properties = torch.cuda.get_device_properties(torch.device(device))
    return Card(name=properties.name, memory=int(properties.total_memory))


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How an estimate compares with a card."""

    card: Card
    estimate: MemoryEstimate
    changes: tuple[str, ...]
    """What to change where the step does not fit, each with what it would need; one after another."""
    fits_changed: bool = True
    """Whether it fits with all of them."""
    beyond: str = ""
    """What else might help, whose need is not estimated."""

    @property
    def fits(self) -> bool:
        return _fits(self.estimate, self.card)

    def sentence(self) -> str:
        """For people."""
        need, has = self.estimate.total / GIB, self.card.memory / GIB
        text = f"needs {need:.1f} GiB of the {has:.1f} GiB of {self.card.name}"
        if self.fits:
            return text
        text = f"{text}, {RESERVE / GIB:.0f} GiB left for CUDA: it does not fit"
        if self.fits_changed:
            return f"{text}. What helps, one after another: {'; '.join(self.changes)}"
        tried = f", not even with {'; '.join(self.changes)}" if self.changes else ""
        return f"{text}{tried}. Take a larger card{self.beyond}"


def fit_to_card(
    card: Card,
    settings: Settings,
    model: AlignedStudent,
    parts: TrainableParts,
    shape: StepShape,
    estimate: MemoryEstimate,
) -> Fit:
    """Compare a run's step with a card; changes are tried in the order in which they cost least."""
    changes = []
    fits = _fits(estimate, card)
    for text, changed in () if fits else _cheaper(settings, model, parts, shape):
        changes.append(f"{text} ({changed.total / GIB:.1f} GiB)")
        if fits := _fits(changed, card):
            break
    others = []
    if settings.student.quantization is None and settings.training.sharding is None:
        others = ["student.quantization 4bit", "training.sharding fsdp2 on several cards"]
    beyond = "".join(f", or try {' or '.join(others)}" for _ in others[:1])
    return Fit(card=card, estimate=estimate, changes=tuple(changes), fits_changed=fits, beyond=beyond)


def _cheaper(
    settings: Settings, model: AlignedStudent, parts: TrainableParts, shape: StepShape
) -> Iterator[tuple[str, MemoryEstimate]]:
    """Settings that need less, from the one that costs least, each with those before it."""
    training, half = settings.training, settings.student.precision == "float32"
    precision = "bfloat16" if half else settings.student.precision
    checkpointing = training.gradient_checkpointing

    def changed(shape: StepShape) -> MemoryEstimate:
        estimate = estimate_memory(model, parts, shape, precision=precision, checkpointing=checkpointing)
        return replace(estimate, weights=_weights_in_half(model)) if half else estimate

    if half:
        yield "student.dtype bfloat16", changed(shape)
    if checkpointing is None:
        checkpointing = "non_reentrant"
        yield "training.gradient_checkpointing non_reentrant", changed(shape)
    size = training.per_device_train_batch_size
    while size > 1:
        size = math.ceil(size / 2)
        accumulation = math.ceil(training.gradient_accumulation_steps * training.per_device_train_batch_size / size)
        images = math.ceil(shape.images * size / shape.samples)
        yield (
            f"training.per_device_train_batch_size {size} with training.gradient_accumulation_steps {accumulation}",
            changed(replace(shape, samples=size, images=images)),
        )


def _weights_in_half(model: AlignedStudent) -> int:
    """Bytes of the weights with those in bfloat16 that are not trained."""
    return sum(p.numel() * (4 if p.requires_grad else 2) for p in model.parameters())


def _fits(estimate: MemoryEstimate, card: Card) -> bool:
    return estimate.total + RESERVE <= card.memory
