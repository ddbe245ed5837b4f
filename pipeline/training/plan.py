"""The plan of a training run; checks manifest, student and store before the first step."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from ...choices import DataUse
from ...errors import InputError, StoreError
from ...student.adapters.trainable import count_trainable, make_trainable
from ...student.inputs.alignment_dataset import AlignmentDataset
from ...student.inputs.collation import Sample
from ...student.loading.start_adapter import open_to_train
from ...student.loading.student_loading import Student
from ...student.processes import Processes
from ...student.training.step_memory import estimate_memory
from ...student.training.training_run import check_reporters
from ...teacher_cache.sharing.data_use_gate import strictest
from ...teacher_cache.store import TeacherStore, open_store
from ...teacher_cache.store.format.keyed_hashes import given_key
from ...teacher_cache.store.format.profiles import has_patches
from ..data.image_hashing import misplaced_images
from ..data.manifest import Manifest
from ..data.samples import answered_samples
from ..devices import pick_device
from ..runs.provenance import student_data_use
from .auto_dtype import with_dtype
from .gpu_memory import Card, fit_to_card, present_card
from .plan_checks import check_fitting_store, check_layers, check_patience, check_positions, check_precision
from .region_targets import read_region_targets
from .settings import PRESETS, Settings
from .step_shape import largest_step
from .training_plan import TrainingPlan, trainable_parts


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
    if settings.alignment.image_tokens == "teacher":
        student = _with_features(student, store)
    if settings.alignment.query_experts:
        student.model.add_query_experts()
    parts = trainable_parts(settings)
    make_trainable(student.model, parts, base=student.base)
    encode = partial(
        AlignmentDataset,
        student,
        store=store,
        max_length=settings.training.max_length,
        regions=None if regions is None else regions.maps,
        attention_targets=settings.alignment.attention_targets,
        visual_weights=settings.alignment.visual_weights,
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


def _data_use(splits: list[Manifest], store: TeacherStore | None, student: Student) -> DataUse:
    """The strictest data-use class of all training data."""
    classes = [split.data_use for split in splits]
    classes += [] if store is None else [store.header.data_use]
    return strictest([*classes, *student_data_use(student)])


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


def _with_features(student: Student, store: TeacherStore | None) -> Student:
    """The student with a new projection of the store's E_v in place of its vision tower."""
    assert store is not None
    if not has_patches(store.header.profile):
        raise StoreError(
            f"the store {store.location} has profile {store.header.profile}, which holds cosines of patch features but "
            "not the features (E_v) that alignment.image_tokens projects. Extract again with --profile float16, native "
            "or int8"
        )
    student.model.project_teacher(store.header.width)
    return replace(student, features=store)


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
