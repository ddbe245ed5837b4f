"""Stage two wired: everything is checked against manifest and store before the first step."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from ..errors import InputError, StoreError
from ..progress import Progress
from ..student.adapters import AdapterRecord, add_lora
from ..student.data import AlignmentDataset, Sample
from ..student.loading import Student, open_student
from ..student.trainer import TrainingOptions
from ..student.training import LOG_FILE, TrainingResult, train_student, trainable_parameters
from ..teacher_cache.store import TeacherStore, open_store
from ..teacher_cache.store.keyed import read_key
from .devices import pick_device
from .hashing import misplaced_images
from .manifest import Manifest
from .samples import manifest_samples
from .settings import PRESETS, Settings

CONFIG_FILE = "config.yaml"
"""The resolved settings of a run, in its folder."""


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """What a run would do; `run_training` starts from it."""

    settings: Settings
    student: Student
    store: TeacherStore | None
    train: list[Sample]
    validation: list[Sample]
    parameters: dict[str, int]

    def summary(self) -> dict[str, object]:
        """The plan for people and for --json."""
        settings = self.settings.training
        effective = settings.batch_size * settings.accumulation_steps
        steps = settings.max_steps or max(1, round(settings.epochs * -(-len(self.train) // effective)))
        header = None if self.store is None else self.store.header
        return {
            "student": str(self.settings.student.path),
            "template": self.student.template_name,
            "image_tokens": str(self.student.images.grid),
            "train_questions": len(self.train),
            "validation_questions": len(self.validation),
            "optimiser_steps": steps,
            "samples_per_step": effective,
            "trainable_rotation": self.parameters["rotation"],
            "trainable_lora": self.parameters["lora"],
            "store": None if self.store is None else self.store.location,
            "store_profile": None if header is None else header.profile,
            "store_fingerprint": None if header is None else header.fingerprint,
            "teacher": None if header is None else header.teacher,
        }


@dataclass(frozen=True, kw_only=True)
class TrainingReport:
    """What a run did and where it is."""

    out: Path
    plan: dict[str, object]
    result: TrainingResult

    def summary(self) -> dict[str, object]:
        return {"adapter": str(self.out), **asdict(self.result), "plan": self.plan}


def plan_training(settings: Settings) -> TrainingPlan:
    """Load the student and check manifest, splits and store against it, before anything is trained.

    Raises:
        SettingsError: the layer does not exist, or the template is unknown.
        InputError: a split or an image file is missing, or the student's folder is not whole.
        StoreError: the store's grid, geometry or teacher does not fit, or training images have no row in it.
    """
    manifest = Manifest.read(settings.data.manifest, settings.data.root)
    train = manifest.split(settings.data.train_split)
    validation = manifest.split(settings.data.validation_split) if settings.data.validation_split else None
    samples = {"train": manifest_samples(train), "validation": manifest_samples(validation) if validation else []}
    _require_questions(settings, samples["train"])
    _require_images([*samples["train"], *samples["validation"]], manifest.root)
    torch.manual_seed(settings.training.seed)  # LoRA's initial values
    student = open_student(
        settings.student.path,
        layers=settings.alignment.layers,
        rotation=settings.alignment.rotation,
        template=settings.student.template,
        attention_normalisation=PRESETS[settings.alignment.preset].attention_normalisation,
        dtype=settings.student.dtype,
    )
    store = None
    if settings.alignment.uses_store and settings.data.store is not None:
        key = settings.data.hash_key
        store = open_store(settings.data.store, None if key is None else read_key(key))
        _check_store(settings, student, store, [*samples["train"], *samples["validation"]])
    add_lora(
        student.model,
        base=student.base,
        rank=settings.lora.rank,
        alpha=settings.lora.alpha,
        dropout=settings.lora.dropout,
    )
    return TrainingPlan(
        settings=settings,
        student=student,
        store=store,
        train=samples["train"],
        validation=samples["validation"],
        parameters=trainable_parameters(student.model),
    )


def run_training(settings: Settings, out: Path, progress: Progress, *, resume: bool = False) -> TrainingReport:
    """Plan, train, and write the adapter with its record and the resolved settings to `out`.

    Raises:
        InputError: `out` already holds a run and `resume` is off; or as `plan_training`.
    """
    check_out(out, resume=resume)
    plan = plan_training(settings)
    out.mkdir(parents=True, exist_ok=True)
    (out / CONFIG_FILE).write_text(settings.to_yaml())
    if not resume:
        (out / LOG_FILE).unlink(missing_ok=True)
    length = settings.training.max_length
    result = train_student(
        plan.student,
        _record(plan),
        _options(settings),
        AlignmentDataset(plan.student, plan.train, plan.store, max_length=length),
        AlignmentDataset(plan.student, plan.validation, plan.store, max_length=length) if plan.validation else None,
        out,
        progress,
        resume=resume,
    )
    report = TrainingReport(out=out, plan=plan.summary(), result=result)
    (out / "summary.json").write_text(json.dumps(report.summary(), indent=2) + "\n")
    return report


def check_out(out: Path, *, resume: bool) -> None:
    """Check that a run can write to `out`, or go on in it.

    What a run that was stopped before its first checkpoint leaves there is no obstacle to starting again.

    Raises:
        InputError: it holds something and `resume` is off, or there is nothing in it to go on from.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file: give another --out")
    names = {path.name for path in out.iterdir()} if out.is_dir() else set()
    can_resume = any(name.startswith("checkpoint-") for name in names)
    if resume and not can_resume:
        raise InputError(f"{out} has no checkpoint to resume from: start without --resume")
    if names - {CONFIG_FILE, LOG_FILE} and not resume:
        how = "give another --out, or --resume to go on with the run in it" if can_resume else "give another --out"
        raise InputError(f"{out} is not empty: {how}")


def _require_questions(settings: Settings, samples: list[Sample]) -> None:
    if not samples:
        raise InputError(
            f"split {settings.data.train_split!r} of {settings.data.manifest} has images but no questions: there is "
            "nothing to train on"
        )


def _require_images(samples: list[Sample], root: Path) -> None:
    paths = {image.path for sample in samples for image in sample.images}
    missing = sorted(path for path in paths if not path.is_file())
    if missing:
        raise misplaced_images(missing, len(paths), root, "set data.root to their folder")


def _check_store(settings: Settings, student: Student, store: TeacherStore, samples: list[Sample]) -> None:
    header, alignment = store.header, settings.alignment
    problems = []
    if header.grid != student.images.grid:
        problems.append(
            f"its grid is {header.grid}, the student has {student.images.grid} image tokens "
            f"(extract again with --grid {student.images.grid})"
        )
    if header.geometry != alignment.required_geometry:
        problems.append(
            f"its geometry is {header.geometry!r}, preset {alignment.preset!r} needs {alignment.required_geometry!r} "
            f"(extract again with --geometry {alignment.required_geometry}, or set alignment.geometry)"
        )
    if settings.data.teacher not in (None, header.teacher):
        problems.append(f"its teacher is {header.teacher!r}, data.teacher says {settings.data.teacher!r}")
    if problems:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise StoreError(f"the store {store.location} does not fit this run:\n{lines}")
    images = {image.image_hash: image.pixel_hash for sample in samples for image in sample.images}
    missing = store.missing(list(images), list(images.values()))
    if missing:
        raise store.missing_error(missing, len(images))


def _record(plan: TrainingPlan) -> AdapterRecord:
    settings, student, store = plan.settings, plan.student, plan.store
    return AdapterRecord(
        base=str(student.base.resolve()),
        base_fingerprint=student.base_fingerprint,
        layers=settings.alignment.layers,
        rotation=settings.alignment.rotation,
        template=student.template_name,
        attention_normalisation=student.model.attention_normalisation,
        store=None
        if store is None
        else {
            "fingerprint": store.header.fingerprint,
            "teacher": store.header.teacher,
            "weights_sha256": store.header.weights_sha256,
            "data_use": store.header.data_use,
        },
        settings=settings.model_dump(mode="json"),
    )


def _options(settings: Settings) -> TrainingOptions:
    training = settings.training
    return TrainingOptions(
        alpha=settings.alignment.alpha,
        beta=settings.alignment.beta,
        learning_rate=training.learning_rate,
        rotation_learning_rate=settings.rotation_learning_rate,
        weight_decay=training.weight_decay,
        warmup_ratio=training.warmup_ratio,
        epochs=training.epochs,
        max_steps=training.max_steps,
        batch_size=training.batch_size,
        accumulation_steps=training.accumulation_steps,
        evaluation_steps=training.evaluation_steps,
        save_steps=training.save_steps,
        logging_steps=training.logging_steps,
        precision=settings.student.dtype,
        workers=training.workers,
        seed=training.seed,
        device=pick_device(training.device),
    )
