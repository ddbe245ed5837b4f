"""A trained student as one model folder: merged weights in transformers' format, W, and a model card."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ...errors import InputError
from ...progress import Progress
from ..adapters.adapter_folder import ROTATION_FILE, AdapterRecord, read_adapter_record
from ..adapters.student_record import StudentRecord, fingerprint_adapter, write_student_record
from ..dtypes import Dtype
from ..families.bases import written_tokenizer
from ..file_errors import is_file, read_object
from ..finite import check_finite
from ..loading.adapter_loading import attach_adapter
from ..loading.lora_merging import merge_lora
from ..loading.student_loading import find_base, open_base
from .model_card import CardFacts, base_licence, student_card
from .model_folder import check_new_folder, copy_licences, new_folder, save_llava


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportReport:
    """What was exported and how it is to be used."""

    base: str
    base_fingerprint: str
    adapter_fingerprint: str
    template: str
    dtype: str
    rotation: str
    """How W was trained; only `full` acts at inference."""
    stock: bool
    """Whether stock transformers gives the same answers: it does where no W acts at inference."""
    data_use: str | None
    licences: list[str]
    """Files that were copied from the base."""


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
        out: folder to make; must not exist or be empty.
        base: the base's folder, where it is not where the adapter says.
        dtype: precision to write; None keeps the base's. LoRA is merged in float32 whatever it is.
        evaluations: `metrics.json` of evaluations of this adapter.
        progress: told of each step.

    Raises:
        InputError: the adapter is not whole or belongs to another base, an evaluation to another adapter, or `out` is
            in use.
        MedalignError: merged weights or W are NaN or infinite.
    """
    check_new_folder(out)
    record = read_adapter_record(adapter)
    folder = base or find_base(adapter, record)
    fingerprint = fingerprint_adapter(adapter)
    _check_evaluations(evaluations, fingerprint)
    progress.start("exporting", 3)
    student = open_base(folder, record, adapter, dtype=None)
    stored = student.model.llava.dtype
    attach_adapter(student.model, record, adapter)
    check_finite(
        {f"W of layer {layer}": W.weight for layer, W in student.model.rotations.items()},
        f"{adapter} is not exported",
        "Train again, or export an earlier checkpoint of the run",
    )
    progress.advance()
    llava = merge_lora(student.model.llava, stored if dtype is None else getattr(torch, dtype))
    progress.advance()
    acts = record.rotation == "full" and bool(student.model.rotations)
    facts = CardFacts(
        name=out.name,
        base=folder.resolve().name,
        licence=base_licence(folder),
        record=record,
        adapter_fingerprint=fingerprint,
        dtype=str(llava.dtype).removeprefix("torch."),
        evaluations=tuple(evaluations),
        final=_final_losses(adapter),
    )
    with new_folder(out) as partial:
        images = student.images
        save_llava(llava, written_tokenizer(folder), mean=images.mean, std=images.std, folder=partial)
        if acts:
            shutil.copyfile(adapter / ROTATION_FILE, partial / ROTATION_FILE)
        licences = copy_licences(folder, partial)
        (partial / "README.md").write_text(student_card(facts))
        placed = _student_record(record, facts, acts=acts, known_rows=student.model.known_rows)
        write_student_record(placed, partial)
    progress.advance()
    return ExportReport(
        base=facts.base,
        base_fingerprint=record.base_fingerprint,
        adapter_fingerprint=fingerprint,
        template=record.template,
        dtype=facts.dtype,
        rotation=record.rotation,
        stock=not acts,
        data_use=record.data_use,
        licences=licences,
    )


def _student_record(record: AdapterRecord, facts: CardFacts, *, acts: bool, known_rows: int) -> StudentRecord:
    return StudentRecord(
        source=facts.base,
        source_fingerprint=record.base_fingerprint,
        family=None,
        template=record.template,
        layers=record.layers if acts else (),
        rotation="full" if acts else "none",
        adapter_fingerprint=facts.adapter_fingerprint,
        known_rows=known_rows,
        data_use=record.data_use,
    )


def _check_evaluations(evaluations: Sequence[Mapping[str, Any]], fingerprint: str) -> None:
    """An evaluation on the card must be of these very weights."""
    for evaluation in evaluations:
        run = evaluation.get("run")
        found = run.get("adapter_fingerprint") if isinstance(run, dict) else None
        if found != fingerprint:
            raise InputError(
                f"an evaluation is of the adapter {str(found)[:12]}, not of this one ({fingerprint[:12]}): evaluate "
                "this adapter with `medalign student evaluate`"
            )


def _final_losses(adapter: Path) -> dict[str, float]:
    """Last logged losses of the run, from its summary.json; empty where there is none."""
    path = adapter / "summary.json"
    if not is_file(path):
        return {}
    final = read_object(path).get("final") or {}
    if not isinstance(final, dict) or not all(isinstance(value, int | float) for value in final.values()):
        raise InputError(f"{path}: final is {final!r}, not losses by name")
    return final
