"""Loading adapters, onto their base for inference or back into a model in training.

Every tensor that an adapter's record implies must be present, finite and of the right shape; other tensors are refused.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from ...errors import InputError
from ..adapters.adapter_folder import (
    ADAPTER_RECORD,
    LORA_CONFIG,
    LORA_FILE,
    ROTATION_FILE,
    AdapterRecord,
    adapter_files,
    has_query_experts,
    part_file,
    projects_teacher,
    read_adapter_record,
    rotation_key,
)
from ..adapters.parameter_names import (
    TEACHER_PROJECTION,
    WHOLE_PARTS,
    Part,
    adapter_name,
    base_name,
    is_lora,
    part_of,
    unused_in_tower,
)
from ..adapters.student_record import fingerprint_adapter
from ..alignment.aligned_student import AlignedStudent
from ..compat.peft import without_peft_warning
from ..distributed_values import put_back, set_value, whole_shape
from ..families.original.weight_index import list_tensors, open_weights
from ..file_errors import is_file, read_object, reading
from ..finite import is_finite
from .lora_config import fields_of_training
from .lora_merging import merge_for_inference


def describe_adapter(folder: Path) -> dict[str, Any]:
    """Settings of an adapter that its fingerprint does not cover: the layers of W, LoRA's rank and scale.

    Those of the adapter that it starts from are in `start`.
    """
    record = read_adapter_record(folder)
    values: dict[str, Any] = {"layers": list(record.layers), "rotation": record.rotation, "trained": record.trained}
    if "lora" in record.trained.values():
        config = _read_lora_config(folder, record)
        values["lora"] = {"rank": config.r, "alpha": config.lora_alpha, "targets": _targets(config)}
    student = record.settings.get("student")
    if isinstance(student, dict) and student.get("quantization") is not None:
        values["quantisation"] = student["quantization"]  # of the base it was trained on
    if record.start is not None:
        values["start"] = describe_adapter(folder / record.start.folder)
    return values


def _targets(config: LoraConfig) -> str | list[str] | None:
    """Pattern or names of the modules with LoRA."""
    targets = config.target_modules
    return targets if targets is None or isinstance(targets, str) else sorted(targets)


def attach_adapter(model: AlignedStudent, record: AdapterRecord, folder: Path) -> None:
    """Load a saved adapter (LoRA, W, and fully trained parts) onto a model of its base.

    The adapter that it starts from, if any, is merged into the base first.

    Raises:
        InputError: a file is missing; a tensor is missing, unexpected, of the wrong shape or not finite; or the record
            and adapter_config.json contradict each other.
    """
    _attach_parts(model, record, folder)
    load_rotations(model, folder)


def merge_adapter(model: AlignedStudent, record: AdapterRecord, folder: Path) -> None:
    """Merge a saved adapter into the weights of a model of its base; W is left as it is.

    The state of torch's random numbers does not change.

    Raises:
        InputError: see `attach_adapter`.
    """
    with torch.random.fork_rng(devices=[]):  # LoRA's initial values are drawn before they are replaced
        _attach_parts(model, record, folder)
    merge_for_inference(model)


def _attach_parts(model: AlignedStudent, record: AdapterRecord, folder: Path) -> None:
    """Merge the adapter that it starts from, and load LoRA and fully trained parts."""
    _check_no_extra_files(record, folder)
    if record.start is not None:
        start = folder / record.start.folder
        merge_adapter(model, _checked_start(record, start, folder), start)
    if "lora" in record.trained.values():
        _attach_lora(model, record, folder)
    if projects_teacher(record):
        model.project_teacher(_teacher_channels(folder / part_file(TEACHER_PROJECTION)))
    if has_query_experts(record):
        model.add_query_experts()
    for part, how in record.trained.items():
        if how == "full":
            _load_part(model, folder, part)


def _checked_start(record: AdapterRecord, start: Path, folder: Path) -> AdapterRecord:
    """Read the record of the adapter that one starts from, and check that it is that of the training run."""
    assert record.start is not None
    if not is_file(start / ADAPTER_RECORD):
        raise InputError(
            f"{folder} starts from another adapter, whose copy {start} is missing. Copy the complete adapter folder "
            "again, with its folders"
        )
    fingerprint = fingerprint_adapter(start)
    if fingerprint != record.start.adapter_fingerprint:
        raise InputError(
            f"{folder} was trained from an adapter with fingerprint {record.start.adapter_fingerprint[:12]}, but "
            f"{start} has {fingerprint[:12]}. Copy the complete adapter folder again, with its folders"
        )
    return read_adapter_record(start)


def _teacher_channels(path: Path) -> int:
    """Width of the E_v that a saved projection reads; 1 if the file has no such tensor, which loading then reports."""
    first = list_tensors([path]).get(f"{TEACHER_PROJECTION}.linear_1.weight") if is_file(path) else None
    return 1 if first is None or len(first.shape) < 2 else int(first.shape[1])


def _check_no_extra_files(record: AdapterRecord, folder: Path) -> None:
    """Refuse weight files that would not be loaded, because an adapter's fingerprint covers all weight files."""
    expected = adapter_files(record)
    extra = sorted(path.name for path in folder.glob("*.safetensors") if path.name not in expected)
    if extra:
        raise InputError(
            f"{folder}: {', '.join(extra)} does not belong to any part that {ADAPTER_RECORD} lists as trained, so it "
            "would not be loaded. Copy the complete adapter folder again, or remove the file"
        )


def _attach_lora(model: AlignedStudent, record: AdapterRecord, folder: Path) -> None:
    """Add the LoRA of adapter_config.json to the model and load its tensors, as strictly as W."""
    if not is_file(folder / LORA_FILE):
        raise InputError(f"{folder} has {ADAPTER_RECORD} but no {LORA_FILE}. Copy the complete adapter folder again")
    config = _read_lora_config(folder, record)
    with reading(folder / LORA_CONFIG), without_peft_warning():
        model.llava = get_peft_model(model.llava, config)
    lora = {name: parameter for name, parameter in model.named_parameters() if is_lora(name)}
    recorded = {part for part, how in record.trained.items() if how == "lora"}
    configured = {part_of(name) for name in lora}
    if configured != recorded:
        raise InputError(
            f"{folder}: {ADAPTER_RECORD} says that LoRA was trained on {_listed(recorded)}, but {LORA_CONFIG} applies "
            f"it to {_listed(configured)}. Copy the complete adapter folder again"
        )
    _set_all({adapter_name(name): parameter for name, parameter in lora.items()}, folder / LORA_FILE)
    for parameter in lora.values():
        parameter.requires_grad_(False)


def _read_lora_config(folder: Path, record: AdapterRecord) -> LoraConfig:
    """Read adapter_config.json and check it against the settings of the run that wrote it."""
    path = folder / LORA_CONFIG
    if not is_file(path):
        raise InputError(f"{folder} has {LORA_FILE} but no {LORA_CONFIG}. Copy the complete adapter folder again")
    values = read_object(path)
    if values.get("peft_type") != "LORA":
        raise InputError(f"{path}: peft_type is {values.get('peft_type')!r}, but medalign reads only 'LORA'")
    lora_settings = record.settings.get("lora")
    for field_name in ("r", "lora_alpha"):
        number = values.get(field_name)
        if not isinstance(number, int) or number < 1:
            raise InputError(f"{path}: {field_name} is {number!r}, not a positive integer")
        expected = lora_settings.get(field_name) if isinstance(lora_settings, dict) else None
        if expected is not None and expected != number:
            raise InputError(
                f"{path}: {field_name} is {number}, but {ADAPTER_RECORD} says that the adapter was trained with "
                f"lora.{field_name} {expected}. Copy the complete adapter folder again"
            )
    fields = fields_of_training(path, values)
    with reading(path):
        config = LoraConfig(**fields)
    config.inference_mode = True
    config.base_model_name_or_path = config.auto_mapping = None  # the record identifies the base, by its fingerprint
    return config


def _listed(parts: Iterable[Part]) -> str:
    return ", ".join(sorted(parts)) or "nothing"


def load_trained(model: AlignedStudent, folder: Path) -> None:
    """Load what `save_adapter` wrote into a model in training, in place.

    Raises:
        InputError: a file is missing, or its parameters are not those that are trained.
    """
    put_back(model)
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    lora = {adapter_name(name): parameter for name, parameter in trained.items() if is_lora(name)}
    if lora:
        _set_all(lora, folder / LORA_FILE)
    load_rotations(model, folder)
    for part in WHOLE_PARTS:
        if any(part_of(name) == part and not is_lora(name) for name in trained):
            _load_part(model, folder, part)


def load_rotations(model: AlignedStudent, folder: Path) -> None:
    """Load the W of every aligned layer.

    Raises:
        InputError: the file is missing, has no W for a layer, or a W has the wrong width.
    """
    if model.rotations:
        _set_all({rotation_key(layer): W.weight for layer, W in model.rotations.items()}, folder / ROTATION_FILE)


def _load_part(model: AlignedStudent, folder: Path, part: Part) -> None:
    unused = unused_in_tower(model.config)
    parameters = {
        base_name(name): parameter
        for name, parameter in model.named_parameters()
        if part_of(name) == part and not is_lora(name) and not unused.search(name)
    }
    _set_all(parameters, folder / part_file(part))


def _set_all(parameters: Mapping[str, nn.Parameter], path: Path) -> None:
    """Load every parameter from a file that must contain exactly these parameters, all finite."""
    if not is_file(path):
        raise InputError(f"{path.parent} is incomplete: {path.name} is missing. Copy the complete folder again")
    stored = list_tensors([path])
    if stored.keys() != parameters.keys():
        missing, extra = sorted(parameters.keys() - stored.keys()), sorted(stored.keys() - parameters.keys())
        parts = [
            f"{len(names)} {kind} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
            for names, kind in ((missing, f"of {len(parameters)} parameters missing"), (extra, "unexpected"))
            if names
        ]
        raise InputError(
            f"{path} does not match the student: {', '.join(parts)}. Copy the complete adapter folder again"
        )
    for name, parameter in parameters.items():
        if stored[name].shape != whole_shape(parameter):
            raise InputError(
                f"{path}: {name} has shape {stored[name].shape}, but the student needs {whole_shape(parameter)}"
            )
    with open_weights(path) as weights:
        for name, parameter in parameters.items():
            value = weights.read(name)
            if not is_finite(value):
                raise InputError(
                    f"{path}: {name} contains NaN or infinite values. The training diverged or the file is damaged; "
                    "use an earlier checkpoint"
                )
            set_value(parameter, value)
