"""Students from disk: a base model folder (transformers Llava), alone or with an adapter."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
from transformers import AutoConfig, AutoTokenizer, LlavaForConditionalGeneration, PreTrainedTokenizerBase

from ..errors import InputError
from .adapters import ADAPTER_RECORD, AdapterRecord, attach_adapter, read_adapter_record
from .aligned import AlignedStudent
from .images import StudentImages, read_student_images
from .losses import AttentionNormalisation
from .prompts import TemplateFunction, find_template
from .quiet import quiet_transformers
from .rotation import RotationMode

Dtype = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True, kw_only=True)
class Student:
    """A loaded student and what is needed to talk to it."""

    model: AlignedStudent
    tokenizer: PreTrainedTokenizerBase
    images: StudentImages
    template: TemplateFunction
    template_name: str
    base: Path
    base_fingerprint: str
    adapter: AdapterRecord | None = field(default=None)


def fingerprint_base(folder: Path) -> str:
    """SHA-256 over config.json and the name, size and first MiB of each weight file.

    Full digests of 15 GB on every start would cost a minute; this tells apart all but deliberately similar files.

    Raises:
        InputError: the folder is no model folder.
    """
    config = folder / "config.json"
    if not config.is_file():
        raise InputError(f"{folder} is not a model folder: it has no config.json")
    digest = hashlib.sha256(config.read_bytes())
    weights = sorted([*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")])
    if not weights:
        raise InputError(f"{folder} has a config.json but no weights (*.safetensors)")
    for path in weights:
        digest.update(f"{path.name} {path.stat().st_size}\n".encode())
        with path.open("rb") as file:
            digest.update(file.read(1 << 20))
    return digest.hexdigest()


def load_llava(folder: Path, dtype: Dtype) -> LlavaForConditionalGeneration:
    """Load a transformers Llava folder strictly, on sdpa attention.

    Raises:
        InputError: not a Llava folder, or weights are missing, left over or of another shape.
    """
    fingerprint_base(folder)
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    if config.model_type != "llava":
        raise InputError(
            f"{folder} holds a {config.model_type!r} model; a student is a transformers Llava. "
            "`medalign student init` makes one from a causal LM and a vision tower."
        )
    with quiet_transformers():  # its report of the same problems follows below, as an error
        model, loaded = LlavaForConditionalGeneration.from_pretrained(
            folder,
            dtype=getattr(torch, dtype),
            attn_implementation="sdpa",
            local_files_only=True,
            output_loading_info=True,
        )
    problems = {name: sorted(map(str, keys)) for name, keys in loaded.items() if keys}
    if problems:
        lines = [f"  {name}: {len(keys)}, first: {', '.join(keys[:3])}" for name, keys in problems.items()]
        raise InputError(f"{folder}: its weights do not fit its config.json\n" + "\n".join(lines))
    return model


def open_student(
    folder: Path,
    *,
    layers: Sequence[int],
    rotation: RotationMode,
    template: str | None = None,
    attention_normalisation: AttentionNormalisation = "sum",
    dtype: Dtype = "float32",
) -> Student:
    """Load a base model folder and put the (zero) alignment parts on it; nothing is trainable yet.

    `template=None` takes the tokenizer's chat template where it has one, else `vicuna_v1`.
    """
    llava = load_llava(folder, dtype)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    images = read_student_images(folder, llava.config)
    name = template or ("chat" if tokenizer.chat_template else "vicuna_v1")
    llava.requires_grad_(False)
    model = AlignedStudent(
        llava,
        layers=layers,
        rotation=rotation,
        patches=images.grid.patches,
        attention_normalisation=attention_normalisation,
    )
    return Student(
        model=model,
        tokenizer=tokenizer,
        images=images,
        template=find_template(name),
        template_name=name,
        base=folder,
        base_fingerprint=fingerprint_base(folder),
    )


def load_student(
    folder: Path | str,
    *,
    adapter: Path | str | None = None,
    device: str = "cpu",
    dtype: Dtype = "float32",
    template: str | None = None,
) -> Student:
    """Load a student for inference.

    `folder` is an adapter folder (its base is found through `medalign.json`) or a base model folder, with the adapter
    given apart or not at all. Without an adapter the model is the plain base.

    Raises:
        InputError: a folder is incomplete, or the adapter was trained on another base.
    """
    folder = Path(folder)
    if adapter is None and (folder / ADAPTER_RECORD).is_file():
        adapter, record = folder, read_adapter_record(folder)
        folder = _find_base(folder, record)
    elif adapter is not None:
        adapter, record = Path(adapter), read_adapter_record(Path(adapter))
    else:
        student = open_student(folder, layers=(), rotation="none", template=template, dtype=dtype)
        student.model.to(device).eval()
        return student
    student = open_student(
        folder,
        layers=record.layers,
        rotation=record.rotation,
        template=template or record.template,
        attention_normalisation=record.attention_normalisation,
        dtype=dtype,
    )
    if student.base_fingerprint != record.base_fingerprint:
        raise InputError(
            f"the adapter {adapter} was trained on a base with fingerprint {record.base_fingerprint[:12]} "
            f"({record.base}); {folder} has {student.base_fingerprint[:12]}. Give that base with --student."
        )
    attach_adapter(student.model, record, adapter)
    student.model.to(device).eval()
    return replace(student, adapter=record)


def _find_base(adapter: Path, record: AdapterRecord) -> Path:
    base = (adapter / record.base).resolve()
    if not base.is_dir():
        raise InputError(
            f"the adapter {adapter} names its base as {record.base}, which is not there: give the base folder with "
            f"--student BASE --adapter {adapter}"
        )
    return base
