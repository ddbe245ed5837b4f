"""Check whether a training step fits into the memory of a GPU, here or elsewhere, and what to change if not."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from ...errors import SettingsError
from ...plain_text import size_text
from ...student.adapters.trainable import TrainableParts
from ...student.alignment.aligned_student import AlignedStudent
from ...student.training.step_memory import MemoryEstimate, StepShape, estimate_memory
from .settings import Settings

GIB = 2**30
RESERVE = GIB
"""Reserved for the CUDA context, kernel workspaces and memory fragmentation, which the estimate does not include."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """A GPU's memory."""

    name: str
    memory: int
    """Bytes."""


def parse_card(text: str) -> Card:
    """Parse the memory of a GPU, such as 24GB; vendors' GB are GiB.

    Raises:
        SettingsError: It is not a size.
    """
    match = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,6})?) ?(GB|GiB|G)?", text, re.IGNORECASE)
    if match is None or float(match[1]) == 0:
        raise SettingsError(f"--card must be the memory of a GPU with the unit GB, such as 24GB or 80GB, not {text!r}")
    if match[2] is None:
        raise SettingsError(f"--card {text} has no unit: add GB, as in {text}GB")
    return Card(name=f"a GPU with {match[1]} GiB", memory=round(float(match[1]) * GIB))


def present_card(device: str) -> Card | None:
    """The GPU that a run would use; None if it uses none."""
    if not device.startswith("cuda"):
        return None
    properties = torch.cuda.get_device_properties(torch.device(device))
    return Card(name=properties.name, memory=int(properties.total_memory))


@dataclass(frozen=True, kw_only=True)
class Fit:
    """The comparison of a memory estimate with a GPU."""

    card: Card
    estimate: MemoryEstimate
    changes: tuple[str, ...]
    """If the step does not fit: changes, each in addition to those before, with the memory needed then."""
    fits_changed: bool = True
    """Whether it fits with all changes."""
    beyond: str = ""
    """Further changes that may help, without an estimate."""

    @property
    def fits(self) -> bool:
        return _fits(self.estimate, self.card)

    def sentence(self) -> str:
        """The comparison as a sentence."""
        text = f"needs {size_text(self.estimate.total)}; {self.card.name} has {size_text(self.card.memory)}"
        if self.fits:
            return text
        text = f"{text}, of which {size_text(RESERVE)} are reserved for CUDA: it does not fit"
        if self.fits_changed:
            return f"{text}. Change, in this order: {'; '.join(self.changes)}"
        tried = f", even with {'; '.join(self.changes)}" if self.changes else ""
        return f"{text}{tried}. Use a larger GPU{self.beyond}"


def fit_to_card(
    card: Card,
    settings: Settings,
    model: AlignedStudent,
    parts: TrainableParts,
    shape: StepShape,
    estimate: MemoryEstimate,
) -> Fit:
    """Compare a training step with a GPU; changes are tried in order of increasing cost."""
    changes = []
    fits = _fits(estimate, card)
    for text, changed in () if fits else _cheaper(settings, model, parts, shape):
        changes.append(f"{text} ({size_text(changed.total)})")
        if fits := _fits(changed, card):
            break
    others = []
    if settings.student.quantization is None and settings.training.sharding is None:
        others = ["student.quantization 4bit", "training.sharding fsdp2 on several GPUs"]
    beyond = "".join(f", or try {' or '.join(others)}" for _ in others[:1])
    return Fit(card=card, estimate=estimate, changes=tuple(changes), fits_changed=fits, beyond=beyond)


def _cheaper(
    settings: Settings, model: AlignedStudent, parts: TrainableParts, shape: StepShape
) -> Iterator[tuple[str, MemoryEstimate]]:
    """Settings that need less memory, in order of increasing cost, each in addition to those before."""
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
    """Bytes of the weights if frozen weights are in bfloat16."""
    return sum(p.numel() * (4 if p.requires_grad else 2) for p in model.parameters())


def _fits(estimate: MemoryEstimate, card: Card) -> bool:
    return estimate.total + RESERVE <= card.memory
