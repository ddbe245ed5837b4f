"""Export of a trained student as one model folder: merged weights in transformers' format, W, and a model card."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ...atomic import write_whole
from ...choices import Dtype
from ...errors import InputError
from ...progress import Progress
from ..adapters.adapter_folder import (
    ROTATION_FILE,
    AdapterRecord,
    has_query_experts,
    projects_teacher,
    read_adapter_record,
)
from ..adapters.student_record import StudentRecord, fingerprint_adapter, write_student_record
from ..families.bases import written_tokenizer
from ..file_errors import is_file, read_object
from ..finite import check_finite
from ..loading.adapter_loading import attach_adapter
from ..loading.lora_merging import merge_lora
from ..loading.student_loading import Student, find_base, open_base
from .model_card import CardFacts, base_license, student_card
from .model_folder import check_new_folder, copy_licenses, new_folder, save_llava


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportReport:
    """What was exported and how to use it."""

    base: str
    base_fingerprint: str
    adapter_fingerprint: str
    template: str
    dtype: str
    rotation: str
    """How W was trained; only with `full` is W applied at inference."""
    stock: bool
    """Whether stock transformers gives the same answers: true if no W is applied at inference."""
    data_use: str | None
    store_title: str | None
    """Title of the teacher store; None if it was not stated, or there is none."""
    store_license: str | None
    """License of the training images, as the teacher store states it; None likewise."""
    licenses: list[str]
    """License files copied from the base."""


def export_adapter(
    adapter: Path,
    out: Path,
    *,
    base: Path | None,
    dtype: Dtype | None,
    evaluations: Sequence[Mapping[str, Any]],
    progress: Progress,
) -> ExportReport:
    """Merge an adapter into its base and write the result.

    Args:
        adapter: folder of `medalign student train`.
        out: folder to create; must not exist, or be empty.
        base: the base's folder, if it is not where the adapter's record says.
        dtype: precision to write; None keeps the base's. LoRA is always merged in float32.
        evaluations: `metrics.json` of evaluations of this adapter.
        progress: reports each step.

    Raises:
        InputError: the adapter is incomplete or belongs to another base, an evaluation is of another adapter, or `out`
            is not empty.
        MedalignError: merged weights or W are NaN or infinite.
    """
    check_new_folder(out)
    record = read_adapter_record(adapter)
    if has_query_experts(record):
        raise InputError(
            f"the adapter {adapter} cannot be exported: it has query experts (alignment.query_experts), whose router "
            "acts between the layers of the language model, which a model folder for transformers cannot express"
        )
    if projects_teacher(record):
        raise InputError(
            f"the adapter {adapter} cannot be exported: its image tokens are a projection of teacher features "
            "(alignment.image_tokens: teacher), which a model folder for transformers cannot compute from images"
        )
    folder = base or find_base(adapter, record)
    fingerprint = fingerprint_adapter(adapter)
    _check_evaluations(evaluations, fingerprint)
    progress.start("exporting", 3)
    student = open_base(folder, record, adapter, dtype=None)
    stored = student.model.llava.dtype
    attach_adapter(student.model, record, adapter)
    _check_rotations(student, adapter)
    progress.advance()
    llava = merge_lora(student.model.llava, stored if dtype is None else getattr(torch, dtype))
    progress.advance()
    applies_rotation = record.rotation == "full" and bool(student.model.rotations)
    facts = CardFacts(
        name=out.name,
        base=folder.resolve().name,
        license=base_license(folder),
        record=record,
        adapter_fingerprint=fingerprint,
        dtype=str(llava.dtype).removeprefix("torch."),
        evaluations=tuple(evaluations),
        final=_final_losses(adapter),
    )
    exported = _student_record(record, facts, applies_rotation=applies_rotation, known_rows=student.model.known_rows)
    with new_folder(out) as partial:
        images = student.images
        save_llava(
            llava, written_tokenizer(folder), mean=images.mean, std=images.std, template=record.template, folder=partial
        )
        if applies_rotation:
            shutil.copyfile(adapter / ROTATION_FILE, partial / ROTATION_FILE)
        licenses = copy_licenses(folder, partial)
        write_whole(partial / "README.md", student_card(facts))
        write_student_record(exported, partial)
    progress.advance()
    return ExportReport(
        base=facts.base,
        base_fingerprint=record.base_fingerprint,
        adapter_fingerprint=fingerprint,
        template=record.template,
        dtype=facts.dtype,
        rotation=record.rotation,
        stock=not applies_rotation,
        data_use=record.data_use,
        store_title=(record.store or {}).get("title"),
        store_license=(record.store or {}).get("license"),
        licenses=licenses,
    )


def _check_rotations(student: Student, adapter: Path) -> None:
    check_finite(
        {f"W of layer {layer}": W.weight for layer, W in student.model.rotations.items()},
        f"{adapter} was not exported",
        "Train again, or export an earlier checkpoint of the run",
    )


def _student_record(
    record: AdapterRecord, facts: CardFacts, *, applies_rotation: bool, known_rows: int
) -> StudentRecord:
    return StudentRecord(
        source=facts.base,
        source_fingerprint=record.base_fingerprint,
        family=None,
        template=record.template,
        layers=record.layers if applies_rotation else (),
        rotation="full" if applies_rotation else "none",
        adapter_fingerprint=facts.adapter_fingerprint,
        known_rows=known_rows,
        data_use=record.data_use,
    )


def _check_evaluations(evaluations: Sequence[Mapping[str, Any]], fingerprint: str) -> None:
    """Check that the evaluations on the card are of this adapter's weights."""
    for evaluation in evaluations:
        run = evaluation.get("run")
        evaluated = run.get("adapter_fingerprint") if isinstance(run, dict) else None
        if evaluated != fingerprint:
            raise InputError(
                f"an evaluation is of the adapter {str(evaluated)[:12]}, not of this one ({fingerprint[:12]}). "
                "Evaluate this adapter with `medalign student evaluate`"
            )


def _final_losses(adapter: Path) -> dict[str, float]:
    """Last logged losses of the run, from its summary.json; empty if there is no such file."""
    path = adapter / "summary.json"
    if not is_file(path):
        return {}
    final = read_object(path).get("final") or {}
    if not isinstance(final, dict) or not all(isinstance(value, int | float) for value in final.values()):
        raise InputError(f"{path}: final is {final!r}, not an object of losses by name")
    return final
