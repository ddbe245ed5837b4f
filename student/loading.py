"""Students on disk: a base model folder, and an adapter folder written by training.

An adapter folder holds peft's LoRA (`adapter_model.safetensors`, `adapter_config.json`), `rotation.safetensors` when
there is a W, and `medalign.json`: which base it belongs to, where W acts, the prompt template, and the settings and
the teacher store it was trained with.
"""

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoTokenizer, LlavaForConditionalGeneration, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from .. import __version__
from ..errors import InputError
from .aligned import AlignedStudent
from .images import StudentImages, read_student_images
from .losses import AttentionNormalisation
from .prompts import TemplateFunction, find_template
from .rotation import Rotation

ADAPTER_RECORD = "medalign.json"
ROTATION_FILE = "rotation.safetensors"
ADAPTER_VERSION = 1

Dtype = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True, kw_only=True)
class AdapterRecord:
    """What an adapter folder says of itself."""

    base: str
    """The base model's folder, relative to the adapter's where possible."""
    base_fingerprint: str
    layer: int
    rotation: bool
    template: str
    attention_normalisation: AttentionNormalisation
    store: dict[str, Any] | None
    """Fingerprint and teacher of the store whose targets were used; None without alignment losses."""
    settings: dict[str, Any]
    """The resolved configuration of the training run."""
    medalign: str = __version__
    format: str = "medalign-adapter"
    version: int = ADAPTER_VERSION


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
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # its report of the same problems follows below, as an error
    try:
        model, loaded = LlavaForConditionalGeneration.from_pretrained(
            folder,
            dtype=getattr(torch, dtype),
            attn_implementation="sdpa",
            local_files_only=True,
            output_loading_info=True,
        )
    finally:
        transformers_logging.set_verbosity(verbosity)
    problems = {name: sorted(map(str, keys)) for name, keys in loaded.items() if keys}
    if problems:
        lines = [f"  {name}: {len(keys)}, first: {', '.join(keys[:3])}" for name, keys in problems.items()]
        raise InputError(f"{folder}: its weights do not fit its config.json\n" + "\n".join(lines))
    return model


def open_student(
    folder: Path,
    *,
    layer: int,
    rotate: bool,
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
        layer=layer,
        rotate=rotate,
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


def add_lora(student: Student, *, rank: int, alpha: int, dropout: float) -> None:
    """Put trainable LoRA on every linear layer of the language model (not tower, projector or lm_head)."""
    language_model = student.model.llava.model.language_model
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
    config.base_model_name_or_path = str(student.base)
    student.model.llava = get_peft_model(student.model.llava, config)


def save_adapter(student: Student, record: AdapterRecord, folder: Path) -> None:
    """Write LoRA, W and the record; the record comes last, so a folder that has one is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    student.model.llava.save_pretrained(folder, safe_serialization=True)
    (folder / "README.md").unlink(missing_ok=True)  # peft's empty model card template
    if student.model.rotation is not None:
        weight = student.model.rotation.weight.detach().cpu().contiguous()
        save_file({"weight": weight}, folder / ROTATION_FILE)
    (folder / ADAPTER_RECORD).write_text(json.dumps(asdict(record), indent=2) + "\n")


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
    return AdapterRecord(**values)


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
        student = open_student(folder, layer=0, rotate=False, template=template, dtype=dtype)
        student.model.to(device).eval()
        return student
    student = open_student(
        folder,
        layer=record.layer,
        rotate=record.rotation,
        template=template or record.template,
        attention_normalisation=record.attention_normalisation,
        dtype=dtype,
    )
    if student.base_fingerprint != record.base_fingerprint:
        raise InputError(
            f"the adapter {adapter} was trained on a base with fingerprint {record.base_fingerprint[:12]} "
            f"({record.base}); {folder} has {student.base_fingerprint[:12]}. Give that base with --student."
        )
    student.model.llava = PeftModel.from_pretrained(student.model.llava, str(adapter))
    if student.model.rotation is not None:
        load_rotation(student.model.rotation, adapter)
    student.model.to(device).eval()
    return Student(**{**vars(student), "adapter": record})


def load_rotation(rotation: Rotation, folder: Path) -> None:
    """Read W into a rotation.

    Raises:
        InputError: the file is missing or of another width.
    """
    path = folder / ROTATION_FILE
    if not path.is_file():
        raise InputError(f"{folder} was trained with a rotation W, but {ROTATION_FILE} is missing")
    weight = load_file(path)["weight"]
    if weight.shape != rotation.weight.shape:
        raise InputError(f"{path}: W is {tuple(weight.shape)}, the student needs {tuple(rotation.weight.shape)}")
    with torch.no_grad():
        rotation.weight.copy_(weight)


def relative_base(base: Path, adapter: Path) -> str:
    """The base's path as seen from the adapter folder, so that both can be moved together."""
    try:
        return os.path.relpath(base.resolve(), adapter.resolve())
    except ValueError:  # another drive
        return str(base.resolve())


def _find_base(adapter: Path, record: AdapterRecord) -> Path:
    base = (adapter / record.base).resolve()
    if not base.is_dir():
        raise InputError(
            f"the adapter {adapter} names its base as {record.base}, which is not there: give the base folder with "
            f"--student BASE --adapter {adapter}"
        )
    return base
