"""Facts that determine a student's answers, read from its folders without loading weights."""

from dataclasses import dataclass
from pathlib import Path

from transformers import LlavaConfig

from ...choices import Dtype, DtypeChoice
from ...teacher_cache.store import TeacherStore
from ..adapters.adapter_folder import ADAPTER_RECORD, AdapterRecord, read_adapter_record
from ..families.bases import fingerprint_base, read_llava_config, read_prompt_identity, read_text_side
from ..families.original import is_original, read_original
from ..file_errors import is_file
from ..inputs.image_processing import StudentImages, read_student_images
from ..loading.student_loading import (
    LoraState,
    check_features,
    check_fingerprint,
    find_base,
    inference_dtype,
    lora_state,
)
from ..prompts.prompt_identity import PromptIdentity, check_prompt
from ..prompts.templates import TemplateOrigin, find_template


@dataclass(frozen=True, kw_only=True, slots=True)
class StudentFacts:
    """Attributes of a student before it is loaded, under the same names as in `Student`."""

    base: Path
    base_fingerprint: str
    template_name: str
    template_origin: TemplateOrigin
    prompt: PromptIdentity
    dtype: Dtype
    lora: LoraState | None
    adapter: AdapterRecord | None
    adapter_folder: Path | None
    images: StudentImages
    layers: int
    """Decoder layers of the language model."""
    features: TeacherStore | None = None
    """Store whose E_v are shown to the student instead of pixels."""


def read_facts(
    folder: Path,
    adapter: Path | None,
    *,
    dtype: DtypeChoice,
    template: str | None,
    keep_lora_apart: bool,
    features: TeacherStore | None = None,
) -> StudentFacts:
    """Read what `load_student` would load with the same arguments, without weights, with the same checks.

    Raises:
        InputError: a folder is incomplete or damaged, or the adapter was trained on a different base.
        SettingsError: there is no template of this name, or `features` does not fit the adapter.
    """
    if adapter is None and is_file(folder / ADAPTER_RECORD):
        adapter = folder
        folder = find_base(folder, read_adapter_record(folder))
    record = None if adapter is None else read_adapter_record(adapter)
    check_features(record, adapter or folder, features)
    text = read_text_side(folder)
    fingerprint = fingerprint_base(folder)
    if record is not None and adapter is not None:
        check_fingerprint(folder, fingerprint, record, adapter)
        check_prompt(record.prompt, read_prompt_identity(folder, record.template), adapter, folder)
    template_name = template or (text.template if record is None else record.template)
    find_template(template_name)
    config = _read_config(folder)
    origin = text.template_origin if record is None else "adapter"
    return StudentFacts(
        base=folder,
        base_fingerprint=fingerprint,
        template_name=template_name,
        template_origin="option" if template is not None else origin,
        prompt=read_prompt_identity(folder, template_name),
        dtype=inference_dtype(folder, record, dtype),
        lora=lora_state(record, keep_lora_apart=keep_lora_apart),
        adapter=record,
        adapter_folder=adapter,
        images=read_student_images(text.images, config),
        layers=config.text_config.num_hidden_layers,
        features=features,
    )


def count_layers(folder: Path, adapter: Path | None) -> int:
    """Decoder layers of the language model of a student, from its config.json.

    Raises:
        InputError: a folder is incomplete or damaged.
    """
    if adapter is None and is_file(folder / ADAPTER_RECORD):
        folder = find_base(folder, read_adapter_record(folder))
    layers: int = _read_config(folder).text_config.num_hidden_layers
    return layers


def _read_config(folder: Path) -> LlavaConfig:
    return read_original(folder).config if is_original(folder) else read_llava_config(folder)
