"""Base models from disk: transformers' Llava or the original format, with tokenizer, image geometry and template."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerBase

from ..errors import InputError, SettingsError
from .images import StudentImages, read_student_images
from .original import is_original, load_original, own_weight_files, read_original
from .quantised import Quantisation, quantisation_config
from .quiet import quiet_transformers
from .record import StudentRecord, read_student_record
from .tokens import forget_image_token, read_tokenizer

Dtype = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True, kw_only=True)
class Base:
    """A base model as read from its folder."""

    llava: LlavaForConditionalGeneration
    tokenizer: PreTrainedTokenizerBase
    """Reads "<image>" as any other text; the image token is known by its id alone."""
    images: StudentImages
    template: str
    """Name of the prompt template that it is asked in unless told otherwise."""
    record: StudentRecord | None
    """What `medalign student convert` or `export` wrote beside it."""
    known_rows: int | None
    """Rows of the embedding tables as published, without one added for `<image>`; None: all of them."""
    fingerprint: str


def load_base(folder: Path, dtype: Dtype | None, quantisation: Quantisation | None = None) -> Base:
    """Load a base model; `dtype=None` keeps the precision it is stored in.

    Raises:
        InputError: the folder is no student, is not whole, or its weights do not fit its config.json.
    """
    fingerprint = fingerprint_base(folder)
    if is_original(folder):
        if quantisation is not None:
            raise SettingsError(
                f"student.quantisation is {quantisation!r}, but {folder} is an original checkpoint: "
                "`medalign student convert` makes a folder that can be quantised"
            )
        checkpoint = read_original(folder)
        llava = load_original(checkpoint, None if dtype is None else getattr(torch, dtype))
        tokenizer, template, record = checkpoint.tokenizer, checkpoint.family.template, None
        known_rows = checkpoint.rows
        images = read_student_images(checkpoint.tower.folder or folder, llava.config)
    else:
        llava = load_llava(folder, dtype, quantisation)
        tokenizer, record = read_tokenizer(folder), read_student_record(folder)
        template = record.template if record else "chat" if tokenizer.chat_template else "vicuna_v1"
        known_rows = record.known_rows if record else None
        images = read_student_images(folder, llava.config)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    forget_image_token(tokenizer, llava.config.image_token_id)
    return Base(
        llava=llava,
        tokenizer=tokenizer,
        images=images,
        template=template,
        record=record,
        known_rows=known_rows,
        fingerprint=fingerprint,
    )


def written_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a base as it is written beside weights: it knows the image token by name, and a pad token."""
    tokenizer = read_original(folder).tokenizer if is_original(folder) else read_tokenizer(folder)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


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
    if is_original(folder):
        weights = own_weight_files(folder)
    else:
        weights = sorted([*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")])
    if not weights:
        raise InputError(f"{folder} has a config.json but no weights (*.safetensors)")
    for path in weights:
        digest.update(f"{path.name} {path.stat().st_size}\n".encode())
        with path.open("rb") as file:
            digest.update(file.read(1 << 20))
    return digest.hexdigest()


def load_llava(
    folder: Path, dtype: Dtype | None, quantisation: Quantisation | None = None
) -> LlavaForConditionalGeneration:
    """Load a transformers Llava folder strictly, on sdpa attention.

    Raises:
        InputError: not a Llava folder, or weights are missing, left over or of another shape.
    """
    kind = json.loads((folder / "config.json").read_text()).get("model_type")
    if kind != "llava":
        raise InputError(
            f"{folder} holds a {kind!r} model; a student is a transformers Llava, or an original LLaVA-Med-1.5, "
            "HuatuoGPT-Vision or LLaVA-1.5. `medalign student init` makes one from a causal LM and a vision tower."
        )
    quantised = {}
    if quantisation is not None:
        quantised["quantization_config"] = quantisation_config(quantisation, getattr(torch, dtype or "float32"))
    with quiet_transformers():  # its report of the same problems follows below, as an error
        model, loaded = LlavaForConditionalGeneration.from_pretrained(
            folder,
            dtype="auto" if dtype is None else getattr(torch, dtype),
            attn_implementation="sdpa",
            local_files_only=True,
            output_loading_info=True,
            **quantised,
        )
    problems = {name: sorted(map(str, keys)) for name, keys in loaded.items() if keys}
    if problems:
        lines = [f"  {name}: {len(keys)}, first: {', '.join(keys[:3])}" for name, keys in problems.items()]
        raise InputError(f"{folder}: its weights do not fit its config.json\n" + "\n".join(lines))
    return model
