"""Checks before the first training step that need only settings, student and lengths."""

import json
from collections.abc import Sequence

from ...choices import Geometry
from ...errors import InputError, SettingsError, StoreError
from ...student.inputs.collation import Sample
from ...student.loading.start_adapter import base_of
from ...student.loading.student_loading import Student
from ...teacher_cache.geometry.patch_grid import PatchGrid
from ...teacher_cache.store import TeacherStore
from ..devices import pick_device
from .settings import Settings


def check_layers(settings: Settings) -> None:
    """Check alignment.layer against the base's config.json before its weights are read; the loader checks it again.

    Raises:
        SettingsError: The language model has fewer layers.
    """
    try:
        config = json.loads((base_of(settings.student.path) / "config.json").read_text())
        number = config.get("text_config", config)["num_hidden_layers"]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return
    beyond = [layer for layer in settings.alignment.layers if isinstance(number, int) and layer >= number]
    if beyond:
        raise SettingsError(
            f"alignment.layer is {beyond[0]}, but the language model of {settings.student.path} has layers 0 to "
            f"{number - 1}"
        )


def check_precision(settings: Settings) -> None:
    """Check that the device trains in the precision of the settings.

    Raises:
        SettingsError: It does not.
    """
    check_dtype(settings.student.dtype, settings.training.device)
    if settings.student.dtype == "float16" and settings.restricts_visual_gradient:
        raise SettingsError(
            f"student.dtype is float16 and alignment.visual_gradient {list(settings.alignment.visual_gradient)}: the "
            "separate gradient of L_vis is not scaled and would underflow; set student.dtype to bfloat16 or float32, "
            "or visual_gradient to all"
        )


def check_dtype(dtype: str, wanted_device: str | None) -> None:
    """Check that the device trains in this precision: float16 needs loss scaling, which accelerate has only on GPUs.

    Raises:
        SettingsError: It does not.
    """
    import torch

    device = pick_device(wanted_device)
    if dtype == "bfloat16" and device == "cuda" and not torch.cuda.is_bf16_supported():
        raise SettingsError(
            f"student.dtype is bfloat16, which this GPU ({torch.cuda.get_device_name()}) does not support: set "
            "student.dtype to float16 or float32"
        )
    if dtype == "float16" and device == "cpu":
        raise SettingsError(
            "student.dtype is float16, which cannot be trained on the CPU: set student.dtype to bfloat16 or "
            "float32, or training.device to a GPU"
        )


def check_patience(settings: Settings, steps: int) -> None:
    """If patience is set, check that there is an evaluation before the last of `steps` optimizer steps.

    Raises:
        SettingsError: There is none.
    """
    training = settings.training
    every = training.eval_steps
    if training.patience is not None and every is not None and every > steps:
        raise SettingsError(
            f"training.patience is {training.patience} and training.eval_steps {every}, but the run has {steps} "
            "steps: there is no evaluation before it ends. Reduce eval_steps, or set patience to null"
        )


def check_positions(student: Student, samples: Sequence[Sample], lengths: Sequence[int]) -> None:
    """Check that the samples, with the given `lengths` in tokens, fit into the positions of the language model.

    Raises:
        InputError: One does not fit; the message has the first such question.
    """
    positions = student.model.max_positions
    for sample, length in zip(samples, lengths, strict=True):
        if length > positions:
            raise InputError(
                f"question {sample.question_id!r} has {length} tokens with its images and its answer, but the language "
                f"model has {positions} positions (max_position_embeddings): shorten or remove the question, or use a "
                "base with more positions"
            )


def check_fitting_store(
    store: TeacherStore, grid: PatchGrid, geometry: Geometry, teacher: str | None, *, needed_by: str, remedy: str
) -> None:
    """Check that a store has the student's grid, the geometry that is needed, and the required teacher, if any.

    `needed_by` and `remedy` are words for the message about geometry.

    Raises:
        StoreError: It does not; the message lists every problem.
    """
    header, problems = store.header, []
    if header.grid != grid:
        problems.append(
            f"its grid is {header.grid}, but the student has {grid} image tokens: extract again with --grid {grid}, "
            f"ask the store's authors for such a store, or use a student with grid {header.grid}"
        )
    if header.geometry != geometry:
        problems.append(
            f"its geometry is {header.geometry!r}, but {needed_by} "
            f"{geometry!r} (extract again with --geometry {geometry}, "
            f"or {remedy})"
        )
    if teacher not in (None, header.teacher):
        problems.append(f"its teacher is {header.teacher!r}, but data.teacher is {teacher!r}")
    if problems:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise StoreError(f"the store {store.location} does not match this run:\n{lines}")
