"""Adapter folders: what training writes and inference reads.

An adapter folder contains peft's LoRA (`adapter_model.safetensors`, `adapter_config.json`), `rotation.safetensors` if
there is a W, `projector.safetensors` and `vision_tower.safetensors` if those parts were fully trained,
`teacher_projection.safetensors` if the image tokens are a projection of the teacher's features,
`query_experts.safetensors` with MoE-Q, and `medalign.json`, which records the base, the trained parts, the layers where
W acts, the prompt template, the settings and the teacher store.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from torch import Tensor, nn

from ... import __version__
from ...atomic import restrict, sync_files, write_whole
from ...choices import AttentionNormalization, DataUse, RotationMode
from ...errors import InputError
from ...suggestions import spelling, to_pass
from ..alignment.aligned_student import AlignedStudent
from ..compat.peft import without_peft_warning
from ..distributed_values import full_value, put_back
from ..file_errors import is_file, read_object, unfinished_run, writing
from ..finite import check_finite
from ..prompts.prompt_identity import PromptIdentity
from .parameter_names import (
    MODULES,
    QUERY_EXPERTS,
    TEACHER_PROJECTION,
    WHOLE_PARTS,
    Part,
    base_name,
    is_lora,
    part_of,
    unused_in_tower,
)
from .setting_names import with_current_names
from .student_record import as_record

ADAPTER_RECORD = "medalign.json"
LORA_FILE = "adapter_model.safetensors"
LORA_CONFIG = "adapter_config.json"
ROTATION_FILE = "rotation.safetensors"
ADAPTER_FORMAT = "medalign-adapter"
ADAPTER_VERSION = 2
"""Newest version that is read; 2 is written only for an adapter that starts from another one."""
START_FOLDER = "start"
"""Copy of the adapter that a run started from, in the folder of its own adapter."""


@dataclass(frozen=True, kw_only=True)
class StartAdapter:
    """The adapter that a run started from; it is merged into the base before the run's own adapter is added."""

    folder: str
    """The adapter's folder; in a file, relative to the folder of the adapter that starts from it."""
    adapter_fingerprint: str
    trained: dict[Part, str]
    """How each part of the base was trained by it, and by those that it starts from itself."""
    data_use: DataUse | None = None


@dataclass(frozen=True, kw_only=True)
class AdapterRecord:
    """Contents of an adapter's `medalign.json`."""

    base: str
    """The base model's folder; in a file, relative to the adapter's folder if possible."""
    base_fingerprint: str
    layers: tuple[int, ...]
    """Zero-based decoder layers whose inputs are aligned."""
    rotation: RotationMode
    template: str
    attention_normalisation: AttentionNormalization
    store: dict[str, Any] | None
    """Fingerprint, root digest, title, license and teacher of the store whose targets were used, without those that
    older releases did not record; None without alignment losses."""
    settings: dict[str, Any]
    """The resolved configuration of the training run, under the current names."""
    data_use: DataUse | None = None
    """Strictest data-use class of questions, store and base; None if unknown."""
    trained: dict[Part, str] = field(default_factory=lambda: {"language_model": "lora"})
    """How each part of the base was trained, "lora" or "full"; frozen parts are not listed."""
    prompt: PromptIdentity | None = None
    """How the base was prompted; None in records of older releases, which load with `template` only."""
    questions_sha256: str | None = None
    """Digest of the training questions, answers and images, in order, or of the images of `student align`, which has no
    questions; None if it was not computed."""
    start: StartAdapter | None = None
    """The adapter that the run started from; None if it started from the base."""
    medalign: str = __version__
    format: str = ADAPTER_FORMAT
    version: int = 1


def has_query_experts(record: AdapterRecord) -> bool:
    """Whether an adapter has the experts of MoE-Q."""
    return QUERY_EXPERTS in record.trained


def projects_teacher(record: AdapterRecord) -> bool:
    """Whether an adapter's image tokens are a projection of the teacher's features, so that it needs a store."""
    return TEACHER_PROJECTION in record.trained


def add_lora(
    model: AlignedStudent,
    *,
    base: Path,
    rank: int,
    alpha: int,
    dropout: float,
    parts: Sequence[Part] = ("language_model",),
) -> None:
    """Add trainable LoRA to every linear layer of the given parts (never to lm_head)."""
    targets = [rf".*\b{MODULES[part]}\.(?:.*\.)?({'|'.join(_linear_names(model, part))})" for part in parts]
    unused = unused_in_tower(model.config)
    excludes = "vision_tower" in parts and any(unused.search(name) for name, _ in model.llava.named_modules())
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules="|".join(targets),
        exclude_modules=rf".*{unused.pattern}.*" if excludes else None,
    )  # without a task type, which peft's AutoPeftModel refuses; peft then records the class of the base
    with without_peft_warning():
        model.llava = get_peft_model(model.llava, config)
    config.base_model_name_or_path = str(base.resolve())  # peft reads a relative path from the current folder


def _linear_names(model: AlignedStudent, part: Part) -> list[str]:
    module = model.llava.get_submodule(f"model.{MODULES[part]}")
    return sorted(
        {name.rsplit(".", 1)[-1] for name, part in module.named_modules() if isinstance(part, torch.nn.Linear)}
    )


def trained_values(model: nn.Module) -> dict[str, Tensor]:
    """All trained parameters by their name in the student, unsharded and on the CPU.

    Sharded parameters are gathered one at a time, so all processes must call this.
    """
    put_back(model)
    return {name: full_value(p) for name, p in model.named_parameters() if p.requires_grad}


def save_adapter(
    model: AlignedStudent, record: AdapterRecord, folder: Path, values: Mapping[str, Tensor] | None = None
) -> None:
    """Write LoRA, W, fully trained parts and the record. The record is last, so a folder with a record is complete.

    The record's base is written relative to `folder`, so that both can be moved together. Pass `trained_values(model)`
    as `values` if it has been gathered already.

    Raises:
        MedalignError: a file cannot be written, or some values are NaN or infinite; then nothing is written.
    """
    values = trained_values(model) if values is None else values
    check_trained(values, folder)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _save_values(model, values, folder)
        for path in folder.glob("*.safetensors"):  # safetensors writes files that only the owner can read
            restrict(path, folder.stat().st_mode & 0o666)
        sync_files(folder)
        write_adapter_record(record, folder)


def write_adapter_record(record: AdapterRecord, folder: Path) -> None:
    """Write `medalign.json`, with paths relative to `folder`, so that all can be moved together."""
    values = asdict(replace(record, base=_relative_path(Path(record.base), folder)))
    if record.start is None:
        del values["start"]  # as in earlier versions, which can read it
    else:
        values["version"] = ADAPTER_VERSION
        values["start"]["folder"] = _relative_path(Path(record.start.folder), folder)
    write_whole(folder / ADAPTER_RECORD, json.dumps(values, indent=2) + "\n")


def _save_values(model: AlignedStudent, values: Mapping[str, Tensor], folder: Path) -> None:
    """Write one file for LoRA, one for W, and one for each fully trained part."""
    lora = {name.removeprefix("llava."): value for name, value in values.items() if is_lora(name)}
    if lora:
        model.llava.save_pretrained(folder, safe_serialization=True, state_dict=lora)
        (folder / "README.md").unlink(missing_ok=True)  # peft's empty model card template
    rotations = {rotation_key(layer): W for layer, W in _by_layer(model, values).items()}
    if rotations:
        save_file(rotations, folder / ROTATION_FILE)
    for part in WHOLE_PARTS:
        full = {
            base_name(name): value.contiguous()
            for name, value in values.items()
            if part_of(name) == part and not is_lora(name)
        }
        if full:
            save_file(full, folder / part_file(part))


def check_trained(values: Mapping[str, Tensor], folder: Path) -> None:
    """Check that the trained values are finite before writing them to `folder`; all processes pass the same values.

    Raises:
        MedalignError: some values are NaN or infinite.
    """
    check_finite(
        values,
        f"no adapter was written to {folder}",
        "Training diverged: start again with a lower training.learning_rate, or with student.dtype bfloat16 or "
        "float32 instead of float16",
    )


def part_file(part: Part) -> str:
    """File name of a fully trained part."""
    return f"{part}.safetensors"


def adapter_files(record: AdapterRecord) -> set[str]:
    """Weight files that an adapter with this record must have."""
    files = {part_file(part) for part, how in record.trained.items() if how == "full"}
    files |= {LORA_FILE} if "lora" in record.trained.values() else set()
    return files | ({ROTATION_FILE} if record.rotation != "none" else set())


def _by_layer(model: AlignedStudent, values: Mapping[str, Tensor]) -> dict[int, Tensor]:
    """Select the W of each aligned layer from the trained values."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    rotations = {layer: values.get(names[id(W.weight)]) for layer, W in model.rotations.items()}
    return {layer: value.contiguous() for layer, value in rotations.items() if value is not None}


def _is_adapter(folder: Path) -> bool:
    return (folder / ADAPTER_RECORD).is_file()


def read_adapter_record(folder: Path) -> AdapterRecord:
    """Read `medalign.json`.

    Raises:
        InputError: the file is missing, was written by a newer medalign, or a field is missing or of the wrong type.
    """
    path = folder / ADAPTER_RECORD
    if is_file(folder):
        is_inside = is_file(folder.parent / ADAPTER_RECORD)
        remedy = f"its folder, {folder.parent}" if is_inside else f"the folder that has {ADAPTER_RECORD}"
        raise InputError(f"{folder} is not a finished adapter: it is a file; pass {remedy}")
    if not is_file(path):
        if not folder.exists():
            raise InputError(f"{folder} is not a finished adapter: it does not exist{spelling(folder, _is_adapter)}")
        another = to_pass(folder, _is_adapter, f"pass a folder that has {ADAPTER_RECORD}")
        advice = unfinished_run(folder) or f"; {another}"
        raise InputError(f"{folder} is not a finished adapter: it has no {ADAPTER_RECORD}{advice}")
    values = read_object(path)
    version = values.get("version")
    if values.get("format") != ADAPTER_FORMAT or not isinstance(version, int) or version > ADAPTER_VERSION:
        raise InputError(
            f"{path} has format {values.get('format')!r} version {version!r}; this medalign "
            f"({__version__}) reads {ADAPTER_FORMAT!r} up to version {ADAPTER_VERSION}. Update medalign to use it"
        )
    record = as_record(AdapterRecord, values, path)
    return replace(record, settings=with_current_names(record.settings))


def rotation_key(layer: int) -> str:
    """Name of a layer's W in rotation.safetensors."""
    return f"layers.{layer}"


def _relative_path(path: Path, adapter: Path) -> str:
    try:
        return os.path.relpath(path.resolve(), adapter.resolve())
    except ValueError:  # another drive
        return str(path.resolve())
