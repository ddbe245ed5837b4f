"""Conversion of original LLaVA checkpoints to transformers' Llava folders."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ...choices import Dtype
from ...errors import InputError
from ...progress import Progress
from ..adapters.student_record import StudentRecord, write_student_record
from ..families.fingerprints import fingerprint_original
from ..families.original import is_original, load_original, read_original
from ..inputs.image_processing import read_student_images
from .model_folder import check_new_folder, copy_licenses, new_folder, save_llava


@dataclass(frozen=True, kw_only=True, slots=True)
class ConvertReport:
    """What was converted, and what users of the result need to know."""

    family: str
    template: str
    """The prompt template of the project's own inference."""
    dtype: str
    tensors: int
    image_token_id: int
    added_rows: int
    """Rows added to the embedding tables for `<image>`."""
    image_aspect_ratio: str | None
    """How the original project prepared images; students and the written processor pad to a square."""
    source_fingerprint: str


def convert_original(source: Path, out: Path, *, dtype: Dtype | None, progress: Progress) -> ConvertReport:
    """Convert an original checkpoint to a folder that stock `LlavaForConditionalGeneration` loads.

    Args:
        source: folder of LLaVA-Med-1.5, HuatuoGPT-Vision or LLaVA-1.5 as published.
        out: folder to create; must not exist, or be empty.
        dtype: precision to write; None keeps that of the language model.
        progress: reports each step.

    Raises:
        InputError: `source` is not such a checkpoint or is incomplete, or `out` is not empty.
    """
    check_new_folder(out)
    if not is_original(source):
        raise InputError(f"{source} is not an original LLaVA checkpoint; a transformers Llava needs no conversion")
    progress.start("converting", 3)
    checkpoint = read_original(source)
    fingerprint = fingerprint_original(checkpoint)
    progress.advance()
    llava = load_original(checkpoint, None if dtype is None else getattr(torch, dtype))
    progress.advance()
    images = read_student_images(checkpoint.tower.folder or source, llava.config)
    record = StudentRecord(
        source=source.resolve().name,
        source_fingerprint=fingerprint,
        family=checkpoint.family.name,
        template=checkpoint.family.template,
        known_rows=checkpoint.rows,
    )
    with new_folder(out) as folder:
        # Not the language model's own chat template, with which the LLaVA was not trained.
        template = checkpoint.family.template
        save_llava(llava, checkpoint.tokenizer, mean=images.mean, std=images.std, template=template, folder=folder)
        copy_licenses(source, folder)
        write_student_record(record, folder)
    progress.advance()
    return ConvertReport(
        family=checkpoint.family.name,
        template=checkpoint.family.template,
        dtype=_name(llava.dtype),
        tensors=len(checkpoint.tensors),
        image_token_id=llava.config.image_token_id,
        added_rows=llava.config.text_config.vocab_size - checkpoint.rows,
        image_aspect_ratio=checkpoint.image_aspect_ratio,
        source_fingerprint=fingerprint,
    )


def _name(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")
