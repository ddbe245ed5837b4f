"""Adapter folders: what training writes and inference reads.

An adapter folder holds peft's LoRA (`adapter_model.safetensors`, `adapter_config.json`), `rotation.safetensors` when
there is a W, and `medalign.json`: which base it belongs to, where W acts, the prompt template, and the settings and
the teacher store it was trained with.
"""

import json
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from .. import __version__
from ..errors import InputError
from .aligned import AlignedStudent
from .losses import AttentionNormalisation
from .rotation import RotationMode

ADAPTER_RECORD = "medalign.json"
ROTATION_FILE = "rotation.safetensors"
ADAPTER_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class AdapterRecord:
    """What an adapter folder says of itself."""

    base: str
    """The base model's folder; in a written record relative to the adapter's where possible."""
    base_fingerprint: str
    layers: tuple[int, ...]
    """Zero-based decoder layers whose inputs are aligned."""
    rotation: RotationMode
    template: str
    attention_normalisation: AttentionNormalisation
    store: dict[str, Any] | None
    """Fingerprint and teacher of the store whose targets were used; None without alignment losses."""
    settings: dict[str, Any]
    """The resolved configuration of the training run."""
    medalign: str = __version__
    format: str = "medalign-adapter"
    version: int = ADAPTER_VERSION


def add_lora(model: AlignedStudent, *, base: Path, rank: int, alpha: int, dropout: float) -> None:
    """Put trainable LoRA on every linear layer of the language model (not tower, projector or lm_head)."""
    language_model = model.llava.model.language_model
    names = sorted(
        {name.rsplit(".", 1)[-1] for name, part in language_model.named_modules() if isinstance(part, torch.nn.Linear)}
    )
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=rf".*language_model\..*\.({'|'.join(names)})",
        task_type="CAUSAL_LM",
    )
    config.base_model_name_or_path = str(base)
    with without_peft_warning():
        model.llava = get_peft_model(model.llava, config)


def save_adapter(model: AlignedStudent, record: AdapterRecord, folder: Path) -> None:
    """Write LoRA, W and the record; the record comes last, so a folder that has one is whole.

    The record's base is written relative to `folder`, so that both can be moved together.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model.llava.save_pretrained(folder, safe_serialization=True)
    (folder / "README.md").unlink(missing_ok=True)  # peft's empty model card template
    if model.rotations:
        weights = {_rotation_key(layer): W.weight.detach().cpu().contiguous() for layer, W in model.rotations.items()}
        save_file(weights, folder / ROTATION_FILE)
    placed = replace(record, base=_relative_base(Path(record.base), folder))
    (folder / ADAPTER_RECORD).write_text(json.dumps(asdict(placed), indent=2) + "\n")


def read_adapter_record(folder: Path) -> AdapterRecord:
    """Read `medalign.json`.

    Raises:
        InputError: there is none, or a newer medalign wrote it.
    """
    path = folder / ADAPTER_RECORD
    if not path.is_file():
        raise InputError(f"{folder} is not a finished adapter: it has no {ADAPTER_RECORD}")
    values = json.loads(path.read_text())
    if values.get("format") != "medalign-adapter" or values.get("version", 0) > ADAPTER_VERSION:
        raise InputError(
            f"{path} has format {values.get('format')!r} version {values.get('version')}; this medalign "
            f"({__version__}) reads 'medalign-adapter' up to version {ADAPTER_VERSION}"
        )
    return AdapterRecord(**values | {"layers": tuple(values["layers"])})


def attach_adapter(model: AlignedStudent, record: AdapterRecord, folder: Path) -> None:
    """Put a saved adapter's LoRA and W on a model of its base.

    Raises:
        InputError: a file is missing, or W is of another width.
    """
    if not (folder / "adapter_model.safetensors").is_file():
        raise InputError(f"{folder} has {ADAPTER_RECORD} but no adapter_model.safetensors: it was not copied whole")
    with without_peft_warning():
        model.llava = PeftModel.from_pretrained(model.llava, str(folder))
    load_rotations(model, folder)


def load_rotations(model: AlignedStudent, folder: Path) -> None:
    """Read W of every aligned layer that has one.

    Raises:
        InputError: the file is missing, has no W for a layer, or one of another width.
    """
    if not model.rotations:
        return
    path = folder / ROTATION_FILE
    if not path.is_file():
        raise InputError(f"{folder} was trained with a rotation W, but {ROTATION_FILE} is missing")
    weights = load_file(path)
    for layer, rotation in model.rotations.items():
        weight = weights.get(_rotation_key(layer))
        if weight is None:
            raise InputError(f"{path} has no W for layer {layer}; it has {', '.join(weights)}")
        if weight.shape != rotation.weight.shape:
            raise InputError(f"{path}: W is {tuple(weight.shape)}, the student needs {tuple(rotation.weight.shape)}")
        with torch.no_grad():
            rotation.weight.copy_(weight)


def _rotation_key(layer: int) -> str:
    """Name of a layer's W in rotation.safetensors."""
    return f"layers.{layer}"


def _relative_base(base: Path, adapter: Path) -> str:
    try:
        return os.path.relpath(base.resolve(), adapter.resolve())
    except ValueError:  # another drive
        return str(base.resolve())


@contextmanager
def without_peft_warning() -> Iterator[None]:
    """peft asks transformers for an attribute by its old name; nothing that a user could act on."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        yield
