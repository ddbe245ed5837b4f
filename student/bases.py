"""Base models from disk: transformers' Llava or the original format, with tokenizer, image geometry and template."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from transformers import LlavaConfig, LlavaForConditionalGeneration, PreTrainedTokenizerBase

from ..errors import InputError, SettingsError
from .chat import image_name, read_chat_template
from .fingerprints import fingerprint_folder, fingerprint_original
from .images import StudentImages, read_student_images
from .original import is_original, load_original, read_original
from .original.config import read_config
from .original.families import FAMILIES
from .original.files import find_weight_files
from .prompts import TemplateOrigin
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
    template_origin: TemplateOrigin
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
    if is_original(folder):
        if quantisation is not None:
            raise SettingsError(
                f"student.quantisation is {quantisation!r}, but {folder} is an original checkpoint: "
                "`medalign student convert` makes a folder that can be quantised"
            )
        checkpoint = read_original(folder)
        llava = load_original(checkpoint, None if dtype is None else getattr(torch, dtype))
        fingerprint = fingerprint_original(checkpoint)
        tokenizer, template, record = checkpoint.tokenizer, checkpoint.family.template, None
        origin: TemplateOrigin = "family" if checkpoint.family.knows(checkpoint.rows) else "guess"
        known_rows: int | None = checkpoint.rows
        images = read_student_images(checkpoint.tower.folder or folder, llava.config)
    else:
        llava = load_llava(folder, dtype, quantisation)
        fingerprint = fingerprint_folder(folder, llava.config)
        tokenizer, record = read_tokenizer(folder), read_student_record(folder)
        tokenizer.chat_template = read_chat_template(folder, tokenizer)
        template, origin = _template(record, tokenizer)
        known_rows = record.known_rows if record else None
        images = read_student_images(folder, llava.config)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    _name_image_token(tokenizer, llava.config.image_token_id)
    forget_image_token(tokenizer, llava.config.image_token_id)
    return Base(
        llava=llava,
        tokenizer=tokenizer,
        images=images,
        template=template,
        template_origin=origin,
        record=record,
        known_rows=known_rows,
        fingerprint=fingerprint,
    )


def _template(record: StudentRecord | None, tokenizer: PreTrainedTokenizerBase) -> tuple[str, TemplateOrigin]:
    """The template that a folder of transformers' format is asked in, and how that is known."""
    if record is not None:
        return record.template, "guess" if _was_guessed(record) else "record"
    return ("chat", "folder") if tokenizer.chat_template else ("vicuna_v1", "guess")


def _was_guessed(record: StudentRecord) -> bool:
    """Whether a converted folder's template was that of a family whose language model is another."""
    family = next((family for family in FAMILIES if family.name == record.family), None)
    if family is None or record.known_rows is None or record.adapter_fingerprint is not None:
        return False
    return record.template == family.template and not family.knows(record.known_rows)


def _name_image_token(tokenizer: PreTrainedTokenizerBase, image_token_id: int) -> None:
    """Keep what chat templates call the image token, before the tokenizer forgets it."""
    name = tokenizer.convert_ids_to_tokens(image_token_id)
    if isinstance(name, str) and name != image_name(tokenizer):
        tokenizer.image_token = name


def written_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a base as it is written beside weights: it knows the image token by name, and a pad token."""
    if is_original(folder):
        tokenizer = read_original(folder).tokenizer
    else:
        tokenizer = read_tokenizer(folder)
        tokenizer.chat_template = read_chat_template(folder, tokenizer)  # its processor's may lie in a file of its own
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def fingerprint_base(folder: Path) -> str:
    """What adapters know a base by, in whichever format it is (student/fingerprints.py).

    Raises:
        InputError: the folder is no student, or is not whole.
    """
    if is_original(folder):
        return fingerprint_original(read_original(folder))
    _check_kind(folder)
    return fingerprint_folder(folder, LlavaConfig.from_pretrained(folder, local_files_only=True))


def _check_kind(folder: Path) -> None:
    """Only a transformers Llava is left to be a student."""
    kind = read_config(folder).get("model_type")
    if kind != "llava":
        raise InputError(
            f"{folder} holds a {kind!r} model; a student is a transformers Llava, or an original LLaVA-Med-1.5, "
            "HuatuoGPT-Vision or LLaVA-1.5. `medalign student init` makes one from a causal LM and a vision tower."
        )
    if not find_weight_files(folder):
        raise InputError(f"{folder} has a config.json but no weights (*.safetensors)")


def load_llava(
    folder: Path, dtype: Dtype | None, quantisation: Quantisation | None = None
) -> LlavaForConditionalGeneration:
    """Load a transformers Llava folder strictly, on sdpa attention.

    Raises:
        InputError: not a Llava folder, or weights are missing, left over or of another shape.
    """
    _check_kind(folder)
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
