"""The plan of a training run; checks manifest, student and store before the first step."""

import math
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path

import torch

from ...choices import DataUse
from ...errors import InputError
from ...plain_text import as_typed, is_url
from ...student.adapters.parameter_names import Part
from ...student.adapters.trainable import LearningRates, TrainableParts, count_trainable, make_trainable
from ...student.inputs.collation import AlignmentDataset, Sample
from ...student.loading.start_adapter import open_to_train
from ...student.loading.student_loading import Student
from ...student.processes import Processes
from ...student.training.schedule import warmup_steps
from ...student.training.step_memory import MemoryEstimate, estimate_memory
from ...student.training.training_run import check_reporters
from ...teacher_cache.sharing.data_use_gate import strictest
from ...teacher_cache.store import TeacherStore, open_store
from ...teacher_cache.store.cards.store_card import NOT_STATED
from ...teacher_cache.store.format.keyed_hashes import given_key
from ..data.image_hashing import misplaced_images
from ..data.manifest import Manifest
from ..data.samples import answered_samples
from ..devices import pick_device
from ..runs.provenance import describe_start, describe_template, student_data_use
from ..runs.unknown_words import unknown_word_warning
from .auto_dtype import with_dtype
from .gpu_memory import Card, Fit, fit_to_card, present_card
from .plan_checks import check_fitting_store, check_layers, check_patience, check_positions, check_precision
from .region_targets import RegionTargets, read_region_targets
from .settings import PRESETS, Settings
from .step_shape import largest_step


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
            "attention_rows": self.settings.alignment.attention_rows if self.settings.alignment.beta else None,
            "attention_targets": self.settings.alignment.attention_targets if self.settings.alignment.beta else None,
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


def plan_training(settings: Settings, card: Card | None = None) -> TrainingPlan:
    """Load the student and check manifest, splits and store against it, before anything is trained.

    Memory is compared with `card`, by default with the GPU that the run would use.

    Raises:
        SettingsError: The layer does not exist, the template is unknown, the device cannot train in this precision, or
            there is no evaluation for patience.
        InputError: A split or an image file is missing, a question is too long, or the student's folder is incomplete.
        StoreError: The store's grid, geometry or teacher does not fit, or training images have no row in it.
    """
    check_reporters(settings.training.report_to)
    check_layers(settings)
    settings = with_dtype(settings, for_card=card is not None)
    check_precision(settings)
    manifest = Manifest.read(settings.data.manifest, settings.data.root)
    names = [settings.data.train_split, *filter(None, [settings.data.validation_split])]
    splits = [manifest.split(name) for name in names]
    train, *held = map(answered_samples, splits)
    validation = held[0] if held else []
    for name, samples in zip(names, (train, *held), strict=True):
        _require_questions(settings, name, samples)
    _require_images([*train, *validation], manifest.root)
    torch.manual_seed(settings.training.seed)  # LoRA's initial values
    student = open_to_train(
        settings.student.path,
        layers=settings.alignment.layers,
        rotation=settings.alignment.rotation,
        template=settings.student.template,
        attention_normalization=PRESETS[settings.alignment.preset].attention_normalization,
        attention_rows=settings.alignment.attention_rows,
        dtype=settings.student.precision,
        quantization=settings.student.quantization,
    )
    store = _open_store(settings, student, [*train, *validation])
    regions = read_region_targets(settings, splits, [*train, *validation], student.images.grid)
    parts = trainable_parts(settings)
    make_trainable(student.model, parts, base=student.base)
    encode = partial(
        AlignmentDataset,
        student,
        store=store,
        max_length=settings.training.max_length,
        regions=None if regions is None else regions.maps,
        attention_targets=settings.alignment.attention_targets,
    )
    data = encode(samples=train)
    held_out = encode(samples=validation) if validation else None
    for samples, part in ((train, data), (validation, held_out)):
        if part is not None:
            part.check_lengths()
            check_positions(student, samples, part.lengths)
    device = pick_device(settings.training.device)
    shape = largest_step(settings, student, train, max(data.lengths))
    memory = estimate_memory(
        student.model,
        parts,
        shape,
        precision=settings.student.precision,
        checkpointing=settings.training.gradient_checkpointing,
        mask_bytes=4 if device == "cpu" and card is None else 1,
    )
    card = card or present_card(device)
    plan = TrainingPlan(
        settings=settings,
        student=student,
        store=store,
        regions=regions,
        train=data,
        validation=held_out,
        samples=train,
        unanswered=sum(split.questions.height for split in splits) - len(train) - len(validation),
        images=len({image.image_hash for sample in [*train, *validation] for image in sample.images}),
        trainable=count_trainable(student.model),
        memory=memory,
        fit=None if card is None else fit_to_card(card, settings, student.model, parts, shape, memory),
        processes=Processes.of_environment().number,
        data_use=_data_use(splits, store, student),
    )
    check_patience(settings, plan.steps)
    return plan


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
        lora_b_ratio=settings.lora.b_rate,
    )


def _data_use(splits: list[Manifest], store: TeacherStore | None, student: Student) -> DataUse:
    """The strictest data-use class of all training data."""
    classes = [used for split in splits for used in split.frame["data_use"].unique().to_list()]
    classes += [] if store is None else [store.header.data_use]
    return strictest([*classes, *student_data_use(student)])


def _gib(number: int) -> float:
    return round(number / 2**30, 3)


def _require_questions(settings: Settings, split: str, samples: list[Sample]) -> None:
    if samples:
        return
    what, help_ = "train on", ""
    if split == settings.data.validation_split:
        what, help_ = "evaluate on", "; set data.validation_split to another split, or to null for no evaluation"
    raise InputError(
        f"split {split!r} of {settings.data.manifest} has no question with an answer: there is nothing to {what}{help_}"
    )


def _require_images(samples: list[Sample], root: Path) -> None:
    paths = {image.path for sample in samples for image in sample.images}
    missing = sorted(path for path in paths if not path.is_file())
    if missing:
        raise misplaced_images(missing, len(paths), root, "set data.root to their new root")


def _open_store(settings: Settings, student: Student, samples: list[Sample]) -> TeacherStore | None:
    """Open the run's store, if any, and check it against student and samples."""
    if not settings.alignment.uses_store or settings.data.store is None:
        return None
    store = open_store(settings.data.store, given_key(settings.data.hash_key))
    _check_store(settings, student, store, samples)
    return store


def _check_store(settings: Settings, student: Student, store: TeacherStore, samples: list[Sample]) -> None:
    alignment = settings.alignment
    check_fitting_store(
        store,
        student.images.grid,
        alignment.required_geometry,
        settings.data.teacher,
        needed_by=f"preset {alignment.preset!r} needs",
        remedy="set alignment.geometry",
    )
    images = {image.image_hash: image.pixel_hash for sample in samples for image in sample.images}
    missing = store.missing(list(images), list(images.values()))
    if missing:
        raise store.missing_error(missing, len(images))
