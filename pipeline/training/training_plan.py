"""A checked plan of a training run, and what it says of the run."""

import math
from dataclasses import asdict, dataclass
from functools import cached_property

from ...choices import DataUse
from ...plain_text import as_typed, is_url
from ...student.adapters.parameter_names import Part
from ...student.adapters.trainable import LearningRates, TrainableParts
from ...student.inputs.alignment_dataset import AlignmentDataset
from ...student.inputs.collation import Sample
from ...student.loading.student_loading import Student
from ...student.training.schedule import warmup_steps
from ...student.training.step_memory import MemoryEstimate
from ...teacher_cache.store import TeacherStore
from ...teacher_cache.store.cards.store_card import NOT_STATED
from ..runs.provenance import describe_start, describe_template
from ..runs.unknown_words import unknown_word_warning
from .gpu_memory import Fit
from .region_targets import RegionTargets
from .settings import Settings


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """A checked plan, which `run_training` executes."""

    settings: Settings
    """`student.dtype: auto` is replaced by the precision."""
    student: Student
    store: TeacherStore | None
    regions: RegionTargets | None
    """Annotated regions as targets of L_att; None if they are not used."""
    train: AlignmentDataset
    validation: AlignmentDataset | None
    samples: list[Sample]
    """The training questions."""
    unanswered: int
    """Questions of both splits without a reference answer, which are skipped."""
    images: int
    """Number of images in all questions; each has a row in the store."""
    trainable: dict[Part, int]
    """Number of trained parameters per part."""
    memory: MemoryEstimate
    fit: Fit | None
    """Comparison of the memory with the GPU; None if none is used."""
    processes: int
    data_use: DataUse
    """Strictest data-use class of questions, store and base."""

    @property
    def steps(self) -> int:
        """Optimizer steps of the run."""
        settings = self.settings.training
        if settings.max_steps is not None:
            return settings.max_steps
        batches = math.ceil(len(self.train) / (settings.per_device_train_batch_size * self.processes))
        return math.ceil(settings.num_train_epochs * math.ceil(batches / settings.gradient_accumulation_steps))

    def summary(self) -> dict[str, object]:
        """The values for the table and for --json."""
        settings = self.settings.training
        effective = settings.per_device_train_batch_size * settings.gradient_accumulation_steps * self.processes
        header = None if self.store is None else self.store.header
        return {
            "student": str(self.settings.student.path),
            "starts_from": describe_start(self.student),
            "template": describe_template(self.student),
            "dtype": self.settings.student.dtype,
            "image_tokens": str(self.student.images.grid),
            "image_tokens_from": "E_v of the store" if self.settings.alignment.image_tokens == "teacher" else None,
            "aligned_layer": self._aligned_layer(),
            "attention_rows": self.settings.alignment.attention_rows if self.settings.alignment.beta else None,
            "attention_targets": self.settings.alignment.attention_targets if self.settings.alignment.beta else None,
            "visual_weights": self.settings.alignment.visual_weights if self.settings.alignment.alpha else None,
            "visual_gradient": self._visual_gradient(),
            "region_targets": None if self.regions is None else self.regions.coverage(self.samples),
            "images_without_target": self._without_target(),
            "train_questions": len(self.train),
            "validation_questions": 0 if self.validation is None else len(self.validation),
            "unanswered_questions": self.unanswered,
            "unknown_words": self.unknown_words,
            "longest_sample_tokens": max(self.train.lengths),
            "optimizer_steps": self.steps,
            "warmup_steps": warmup_steps(self.steps, settings.warmup_ratio),
            "max_grad_norm": settings.max_grad_norm,
            "samples_per_step": effective,
            "processes": self.processes,
            **{f"trainable_{part}": number for part, number in self.trainable.items()},
            **{f"learning_rate_{part}": self._rate(part) for part, number in self.trainable.items() if number},
            "memory_gib": {
                "total": _gib(self.memory.total),
                **{name: _gib(value) for name, value in asdict(self.memory).items()},
            },
            "gpu_memory": None if self.fit is None else self.fit.sentence(),
            "store": None if self.store is None else self.store.location,
            "store_rows": None if self.store is None else f"{self.images} of {self.images} images",
            "store_profile": None if header is None else header.profile,
            "store_fingerprint": None if header is None else header.fingerprint,
            "store_root_sha256": None if self.store is None else self.store.root_sha256,
            "store_title": None if header is None else header.title or NOT_STATED,
            "store_license": None if header is None else header.licence or NOT_STATED,
            "teacher": None if header is None else header.teacher,
            "data_use": self.data_use,
        }

    @cached_property
    def unknown_words(self) -> str | None:
        """A warning if training answers contain words that the student's tokenizer does not know."""
        answers = [sample.answer for sample in self.samples]
        return unknown_word_warning(self.student.tokenizer, answers, "training answers")

    def not_checked(self) -> str:
        """What a run checks, and a plan does not."""
        manifest = self.settings.data.manifest
        images = (
            "image files exist, but were not compared with the manifest, which training does as it reads them: "
            f"`medalign data check {as_typed(manifest)} --hashes` compares all of them now"
        )
        if self.store is None:
            return images
        store = self.store.location
        whole = (
            f"`medalign store pull {as_typed(store)} --out STORE.zarr` makes a copy that can be verified"
            if is_url(store)
            else f"`medalign store verify {as_typed(store)}` compares all of them now"
        )
        return f"{images}; the store's bytes are compared as they are read; {whole}"

    def _aligned_layer(self) -> str | None:
        """The aligned layers and how many there are; None if no layer is aligned."""
        alignment = self.settings.alignment
        if not (alignment.alpha or alignment.beta or alignment.query_experts or alignment.rotation != "none"):
            return None
        layers = ", ".join(map(str, alignment.layers))
        return f"{layers} of {len(self.student.model.decoder_layers)} (counted from 0)"

    def _visual_gradient(self) -> str | None:
        named = self.settings.alignment.visual_gradient
        if named == "all" or not self.settings.alignment.alpha:
            return None
        second = ", by a second backward pass" if self.settings.restricts_visual_gradient else ""
        return f"{', '.join(named)}{second}"

    def _without_target(self) -> int | None:
        """Training images without L_att; None if all have one."""
        if self.regions is None or self.settings.alignment.attention_targets == "both":
            return None
        return sum(len(sample.images) for sample in self.samples) - self.regions.number(self.samples)

    def _rate(self, part: Part) -> float:
        rate: float = getattr(learning_rates(self.settings), part)
        return rate


def trainable_parts(settings: Settings) -> TrainableParts:
    """Convert the sections `trainable` and `lora` to arguments of the student's builder."""
    return TrainableParts(
        language_model=settings.trainable.language_model,
        projector=settings.trainable.projector,
        vision_tower=settings.trainable.vision_tower,
        rank=settings.lora.r,
        alpha=settings.lora.lora_alpha,
        dropout=settings.lora.lora_dropout,
    )


def learning_rates(settings: Settings) -> LearningRates:
    """The peak learning rate of each part, with defaults for nulls."""
    return LearningRates(
        language_model=settings.training.learning_rate,
        projector=settings.projector_learning_rate,
        vision_tower=settings.vision_tower_learning_rate,
        rotation=settings.rotation_learning_rate,
        teacher_projection=settings.teacher_projection_learning_rate,
        query_experts=settings.training.learning_rate,
        lora_b_ratio=settings.lora.b_rate,
    )


def _gib(number: int) -> float:
    return round(number / 2**30, 3)
