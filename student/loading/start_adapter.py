"""Training from an adapter: it is merged into its base in memory, and copied into the folder of the new adapter.

The base stays the model folder that both share, so they can be compared with each other; the new adapter and its base
are complete without the folder that the run started from.
"""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from ...atomic import new_folder
from ...choices import AttentionNormalization, AttentionRows, Dtype, Quantization, RotationMode
from ...errors import InputError, SettingsError
from ...plain_text import as_typed
from ..adapters.adapter_folder import (
    ADAPTER_RECORD,
    LORA_CONFIG,
    START_FOLDER,
    AdapterRecord,
    StartAdapter,
    adapter_files,
    has_query_experts,
    projects_teacher,
    read_adapter_record,
    write_adapter_record,
)
from ..adapters.parameter_names import Part
from ..adapters.student_record import fingerprint_adapter, read_student_record
from ..file_errors import is_file, writing
from ..prompts.templates import TemplateOrigin
from .adapter_loading import load_rotations, merge_adapter
from .student_loading import Student, check_base, check_keeps_rotations, find_base, open_student

_UNMERGED: Final = {
    "query experts (alignment.query_experts)": has_query_experts,
    "a projection of the teacher's features (alignment.image_tokens)": projects_teacher,
}


def is_adapter(folder: Path) -> bool:
    """Whether a folder is an adapter, and not a model folder."""
    return is_file(folder / ADAPTER_RECORD)


def base_of(folder: Path) -> Path:
    """The model folder of a run that starts from `folder`: itself, or the base of an adapter.

    Raises:
        InputError: the adapter's record is damaged, or its base is not where it says.
    """
    if not is_adapter(folder):
        return folder
    record = read_adapter_record(folder)
    try:
        return find_base(folder, record)
    except InputError as error:
        raise InputError(
            f"the base of the adapter {folder}, {record.base}, does not exist. To train from this adapter, merge it "
            f"into its base: `medalign student export {as_typed(folder)} --student BASE --out MODEL`, and pass MODEL"
        ) from error


def applied_rotations(folder: Path) -> tuple[tuple[int, ...], RotationMode]:
    """Layers and mode of the W that acts in a student before it is trained: of an exported student or an adapter."""
    record = read_adapter_record(folder) if is_adapter(folder) else read_student_record(folder)
    return (record.layers, "full") if record is not None and record.rotation == "full" else ((), "none")


def open_to_train(
    folder: Path,
    *,
    layers: Sequence[int],
    rotation: RotationMode,
    template: str | None = None,
    attention_normalization: AttentionNormalization = "sum",
    attention_rows: AttentionRows = "question",
    dtype: Dtype,
    quantization: Quantization | None = None,
) -> Student:
    """Load a model folder as `open_student` does, or an adapter merged into its base.

    `template=None` uses the adapter's template. W starts as that of the adapter, if it acts in inference.

    Raises:
        InputError: a folder is not a student or is incomplete, or the adapter belongs to another base.
        SettingsError: see `open_student`; or the adapter cannot be merged into quantized weights.
    """
    record = read_adapter_record(folder) if is_adapter(folder) else None
    if record is not None:
        _check_can_start(folder, record, layers, rotation, quantization)
    student = open_student(
        base_of(folder),
        layers=layers,
        rotation=rotation,
        template=template if record is None else template or record.template,
        attention_normalization=attention_normalization,
        attention_rows=attention_rows,
        dtype=dtype,
        quantization=quantization,
    )
    if record is None:
        return student
    check_base(student, record, folder)
    merge_adapter(student.model, record, folder)
    if record.rotation == "full":
        load_rotations(student.model, folder)
    origin: TemplateOrigin = "adapter" if template is None else "option"
    return replace(student, start=_describe(folder, record), template_origin=origin)


def _check_can_start(
    folder: Path,
    record: AdapterRecord,
    layers: Sequence[int],
    rotation: RotationMode,
    quantization: Quantization | None,
) -> None:
    kept_apart = [name for name, has in _UNMERGED.items() if has(record)]
    if kept_apart:
        raise SettingsError(
            f"{folder} is an adapter with {kept_apart[0]}, which cannot be merged into its base: start from its base, "
            f"{base_of(folder)}, or from another adapter"
        )
    if record.rotation == "full":
        check_keeps_rotations(f"{folder} is an adapter", record.layers, layers, rotation)
    if quantization is not None and "language_model" in _all_trained(record):
        raise SettingsError(
            f"student.quantization is {quantization}, but the adapter {folder} has LoRA on the language model, which "
            "cannot be merged into quantized weights. Merge it into its base first: "
            f"`medalign student export {as_typed(folder)} --out MODEL`, and set student.path to MODEL"
        )


def _all_trained(record: AdapterRecord) -> dict[Part, str]:
    """How parts were trained by an adapter and by those that it starts from."""
    return record.trained if record.start is None else record.start.trained | record.trained


def _describe(folder: Path, record: AdapterRecord) -> StartAdapter:
    return StartAdapter(
        folder=str(folder.resolve()),
        adapter_fingerprint=fingerprint_adapter(folder),
        trained=_all_trained(record),
        data_use=record.data_use,
    )


def copy_start(start: StartAdapter, out: Path) -> None:
    """Copy the adapter that a run starts from into the run's folder; another one there is replaced.

    Raises:
        InputError: a file of the adapter is missing.
        MedalignError: a file cannot be written.
    """
    source, target = Path(start.folder), out / START_FOLDER
    if is_adapter(target) and fingerprint_adapter(target) == start.adapter_fingerprint:
        return
    with writing(target):
        if target.is_dir():
            shutil.rmtree(target)
        with new_folder(target) as partial:
            _copy_adapter(source, partial)


def _copy_adapter(source: Path, target: Path) -> None:
    """Copy weights, configuration and record of an adapter, and the adapter that it starts from; no checkpoints."""
    record = read_adapter_record(source)
    names = sorted(adapter_files(record) | ({LORA_CONFIG} if is_file(source / LORA_CONFIG) else set()))
    for name in names:
        shutil.copyfile(source / name, target / name)
    if record.start is not None:
        (target / START_FOLDER).mkdir()
        _copy_adapter(source / record.start.folder, target / START_FOLDER)
        record = replace(record, start=replace(record.start, folder=str(target / START_FOLDER)))
    write_adapter_record(replace(record, base=str(base_of(source).resolve())), target)
