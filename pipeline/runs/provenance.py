"""What determines the results of a run, recorded beside them: the student and the questions."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl

from ... import __version__
from ...choices import DataUse
from ...student.adapters.adapter_folder import ADAPTER_RECORD
from ...student.adapters.student_record import fingerprint_adapter
from ...student.file_errors import is_file
from ...student.folders.student_facts import StudentFacts
from ...student.loading.adapter_loading import describe_adapter
from ...student.loading.student_loading import Student
from ...student.prompts.prompt_identity import PromptIdentity
from ...student.prompts.templates import TEMPLATES
from ...teacher_cache.store import TeacherStore
from ..data.manifest_images import IMAGE_HASHES, MORE_IMAGES_COLUMN


def describe_student(student: Student | StudentFacts, adapter: Path | None) -> dict[str, Any]:
    """Fingerprints of base and adapter, template and precision; names of folders, never paths."""
    return {
        "medalign": __version__,
        "base": student.base.name,
        "base_fingerprint": student.base_fingerprint,
        "adapter": None if adapter is None else adapter.name,
        "adapter_fingerprint": None if adapter is None else fingerprint_adapter(adapter),
        "adapter_settings": None if adapter is None else describe_adapter(adapter),
        "template": student.template_name,
        "prompt": describe_prompt(student.prompt),
        "dtype": student.dtype,
        "lora": student.lora,
        **({} if student.features is None else {"features": _describe_features(student.features)}),
    }


def _describe_features(store: TeacherStore) -> dict[str, Any]:
    """The store whose E_v are shown to a student instead of pixels."""
    return {"teacher": store.header.teacher, "fingerprint": store.header.fingerprint, "root_sha256": store.root_sha256}


def describe_prompt(prompt: PromptIdentity) -> dict[str, Any]:
    """The prompt of a student as it is used; equal for an explicit template and the same one from the base."""
    values = {name: value for name, value in asdict(prompt).items() if name != "base_template"}
    return values | {"end_tokens": list(prompt.end_tokens)}


def template_warnings(student: Student | StudentFacts) -> list[str]:
    """A warning if the prompt template is a guess."""
    if student.template_origin != "guess":
        return []
    return [
        f"the prompt template {student.template_name} is a guess, because {student.base} has none: set the one that "
        f"the student was trained with (student.template, --template): {', '.join(sorted(TEMPLATES))}"
    ]


def describe_template(student: Student) -> str:
    """The template for the summary, with a remark if it is a guess."""
    guessed = student.template_origin == "guess"
    return f"{student.template_name} (a guess: set student.template)" if guessed else student.template_name


def describe_start(student: Student) -> str | None:
    """The adapter that training starts from, for the summary; None if it starts from the base."""
    if student.start is None:
        return None
    trained = ", ".join(f"{part.replace('_', ' ')}: {how}" for part, how in student.start.trained.items())
    return f"adapter {student.start.adapter_fingerprint[:12]} ({trained}), merged into {student.base}"


def student_data_use(student: Student) -> list[DataUse]:
    """The known data-use classes of what a student was trained on before: its base, and the adapter it starts from."""
    start = None if student.start is None else student.start.data_use
    return [used for used in (student.base_data_use, start) if used is not None]


def describe_questions(questions: pl.DataFrame, columns: Sequence[str]) -> dict[str, Any]:
    """The number of questions, their splits, and a digest of `columns`, which covers all images of a question."""
    asked = _identity(questions, columns).write_ndjson()
    return {
        "splits": sorted(questions["split"].unique().to_list()),
        "questions": questions.height,
        "questions_sha256": hashlib.sha256(asked.encode()).hexdigest(),
    }


def _identity(questions: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
    """`columns`, plus the hashes of all images if a question has several, so that other digests do not change."""
    asked = questions.select(columns)
    if (questions[MORE_IMAGES_COLUMN].list.len() > 0).any():
        return asked.with_columns(questions.select(IMAGE_HASHES.alias("image_hashes")).to_series())
    return asked


def adapter_folder(student: Path, adapter: Path | None) -> Path | None:
    """The adapter folder: the given one, or the student folder if it is an adapter."""
    if adapter is None and is_file(student / ADAPTER_RECORD):
        return student
    return adapter
