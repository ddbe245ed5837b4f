"""The plan of `student align`; checks images, student and store before the first step."""

from dataclasses import asdict, dataclass

import torch

from ...choices import DataUse
from ...errors import StoreError
from ...plain_text import size_text
from ...student.adapters.parameter_names import Part
from ...student.adapters.trainable import TrainableParts, count_trainable, make_trainable
from ...student.inputs.collation import SampleImage
from ...student.loading.start_adapter import applied_rotations, open_to_train
from ...student.loading.student_loading import Student
from ...student.processes import Processes
from ...student.training.schedule import warmup_steps
from ...student.training.step_memory import MemoryEstimate, estimate_image_side
from ...student.translation.preparation import ImageSets
from ...teacher_cache.sharing.data_use_gate import strictest
from ...teacher_cache.store import TeacherStore, open_store
from ...teacher_cache.store.cards.store_card import NOT_STATED
from ...teacher_cache.store.format.keyed_hashes import given_key
from ...teacher_cache.store.format.profiles import has_patches
from ..devices import pick_device
from ..runs.provenance import describe_start, describe_template, student_data_use
from ..training.auto_dtype import auto_dtype
from ..training.gpu_memory import RESERVE, Card, Fit, present_card
from ..training.plan_checks import check_dtype, check_fitting_store
from .align_images import read_image_sets
from .align_settings import AlignSettings

FEW_ROWS = 10
"""Rows per unknown of the translation below which the plan warns."""


@dataclass(frozen=True, kw_only=True)
class AlignPlan:
    """A checked plan, which `run_align` executes."""

    settings: AlignSettings
    """`student.dtype: auto` is replaced by the precision."""
    student: Student
    store: TeacherStore
    sets: ImageSets
    trainable: dict[Part, int]
    """Number of trained parameters of tower and projector."""
    memory: MemoryEstimate
    fit: Fit | None
    """Comparison of the memory with the GPU; None if none is used."""
    batch_size: int
    """Images in one forward pass of one process."""
    processes: int
    data_use: DataUse
    """Strictest data-use class of images, store and base."""

    @property
    def unknowns(self) -> int:
        """Coefficients of the translation for each channel of a token."""
        return self.store.header.width + self.student.images.grid.patches

    @property
    def rows(self) -> int:
        """Cells of all fitted anchors."""
        return len(self.sets.anchors) * self.student.images.grid.patches

    def warnings(self) -> list[str]:
        """What may make the result worse than it could be."""
        warnings = []
        if self.rows < FEW_ROWS * self.unknowns:
            warnings.append(
                f"the translation has {self.unknowns} coefficients for each channel of a token, but only {self.rows} "
                f"rows (cells of {len(self.sets.anchors)} anchors): use more anchors if R^2 is low"
            )
        if self.settings.translation.control != "none":
            warnings.append(
                f"translation.control is {self.settings.translation.control}: the store's features are not used, and "
                "translation.minimum_r2 and translation.minimum_skill are not applied"
            )
        if self.report_memory and self.fit is not None and self.report_memory + RESERVE > self.fit.card.memory:
            warnings.append(
                f"the answers before and after need the whole student on the GPU, {size_text(self.report_memory)}; "
                f"{self.fit.card.name} has {size_text(self.fit.card.memory)}: set report.images to 0, or they will "
                "not be measured"
            )
        return warnings

    @property
    def report_memory(self) -> int:
        """Bytes of the whole student's weights, which answer questions at the end; 0 if nothing is measured."""
        item = 4 if self.settings.student.precision == "float32" else 2
        values = sum(parameter.numel() for parameter in self.student.model.llava.parameters())
        return values * item if self.settings.report.images else 0

    def summary(self) -> dict[str, object]:
        """The values for the table and for --json."""
        training, translation, header = self.settings.training, self.settings.translation, self.store.header
        images, sets = self.student.images, self.sets
        width = int(self.student.model.config.text_config.hidden_size)
        cached = (len(sets.anchors) + len(sets.held_out_anchors)) * images.grid.patches * width
        item = 4 if self.settings.student.precision == "float32" else 2
        total = sum(map(len, (sets.targets, sets.held_out_targets, sets.anchors, sets.held_out_anchors)))
        return {
            "student": str(self.settings.student.path),
            "starts_from": describe_start(self.student),
            "template": describe_template(self.student),
            "dtype": self.settings.student.dtype,
            "image_tokens": str(images.grid),
            "targets": len(sets.targets),
            "held_out_targets": len(sets.held_out_targets),
            "anchors": len(sets.anchors),
            "held_out_anchors": len(sets.held_out_anchors),
            "translation_unknowns": self.unknowns,
            "translation_rows": self.rows,
            "ridge": translation.ridge,
            "minimum_r2": translation.minimum_r2,
            "minimum_skill": translation.minimum_skill,
            "keep": translation.keep,
            "control": translation.control,
            "optimizer_steps": training.steps,
            "warmup_steps": warmup_steps(training.steps, training.warmup_ratio),
            "targets_per_step": training.targets_per_step,
            "anchors_per_step": training.anchors_per_step,
            "images_per_pass": self.batch_size,
            "processes": self.processes,
            **{f"trainable_{part}": number for part, number in self.trainable.items()},
            "learning_rate_vision_tower": training.learning_rate,
            "learning_rate_projector": self.settings.projector_learning_rate if self._trains_projector else None,
            "memory_gib": {
                "total": _gib(self.memory.total),
                **{name: _gib(value) for name, value in asdict(self.memory).items()},
            },
            "gpu_memory": None if self.fit is None else self.fit.sentence(),
            "anchor_tokens_on_disk_gib": _gib(cached * item),
            "report_images": self.settings.report.images,
            "report_memory_gib": _gib(self.report_memory),
            "store": self.store.location,
            "store_rows": f"{total} of {total} images",
            "store_profile": header.profile,
            "store_fingerprint": header.fingerprint,
            "store_root_sha256": self.store.root_sha256,
            "store_title": header.title or NOT_STATED,
            "store_license": header.licence or NOT_STATED,
            "teacher": header.teacher,
            "data_use": self.data_use,
        }

    @property
    def _trains_projector(self) -> bool:
        return self.settings.trainable.projector == "full"


def plan_align(settings: AlignSettings, card: Card | None = None) -> AlignPlan:
    """Load the student and check images and store against it, before anything is computed.

    Memory is compared with `card`, by default with the GPU that the run would use.

    Raises:
        SettingsError: A step cannot be divided among the processes, or the device cannot train in this precision.
        InputError: A split or an image is missing, an image is both target and anchor, or the student is incomplete.
        StoreError: The store has no E_v, does not fit the student, or lacks images.
    """
    training, processes = settings.training, Processes.of_environment().number
    batch_size = training.images_per_pass(processes)
    if settings.student.dtype == "auto":
        dtype = auto_dtype(settings.student.path, training.device, for_card=card is not None)
        settings = settings.model_copy(update={"student": settings.student.model_copy(update={"dtype": dtype})})
    check_dtype(settings.student.dtype, training.device)
    sets, data_use = read_image_sets(settings.data, training.seed)
    torch.manual_seed(training.seed)  # LoRA's initial values
    layers, rotation = applied_rotations(settings.student.path)
    student = open_to_train(
        settings.student.path,
        layers=layers,
        rotation=rotation,
        template=settings.student.template,
        dtype=settings.student.precision,
    )
    store = _open_store(settings, student, sets)
    parts = trainable_parts(settings)
    make_trainable(student.model, parts, base=student.base)
    memory = estimate_image_side(student.model, parts, images=batch_size, precision=settings.student.precision)
    card = card or present_card(pick_device(training.device))
    counts = count_trainable(student.model)
    return AlignPlan(
        settings=settings,
        student=student,
        store=store,
        sets=sets,
        trainable={part: counts[part] for part in ("vision_tower", "projector")},
        memory=memory,
        fit=None
        if card is None
        else Fit(
            card=card,
            estimate=memory,
            changes=(),
            fits_changed=False,
            beyond=", or increase training.gradient_accumulation_steps",
        ),
        batch_size=batch_size,
        processes=processes,
        data_use=strictest([data_use, store.header.data_use, *student_data_use(student)]),
    )


def trainable_parts(settings: AlignSettings) -> TrainableParts:
    """Convert the sections `trainable` and `lora` to arguments of the student's builder."""
    return TrainableParts(
        language_model="none",
        projector=settings.trainable.projector,
        vision_tower=settings.trainable.vision_tower,
        rank=settings.lora.r,
        alpha=settings.lora.lora_alpha,
        dropout=settings.lora.lora_dropout,
    )


def _open_store(settings: AlignSettings, student: Student, sets: ImageSets) -> TeacherStore:
    """Open the store, and check it against student and images."""
    data = settings.data
    store = open_store(data.store, given_key(data.hash_key))
    profile = store.header.profile
    if not has_patches(profile):
        raise StoreError(
            f"the store {store.location} has profile {profile}, which holds cosines of patch features but not the "
            "features (E_v) that are translated. Extract again with --profile float16, native or int8"
        )
    check_fitting_store(
        store,
        student.images.grid,
        data.geometry,
        data.teacher,
        needed_by="data.geometry is",
        remedy="set data.geometry",
    )
    images: list[SampleImage] = [
        *sets.targets,
        *sets.held_out_targets,
        *sets.anchors,
        *sets.held_out_anchors,
    ]
    missing = store.missing([image.image_hash for image in images], [image.pixel_hash for image in images])
    if missing:
        raise store.missing_error(missing, len(images))
    return store


def _gib(number: int) -> float:
    return round(number / 2**30, 3)
