"""Loading students from a base model folder, with or without an adapter."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

from ...choices import AttentionNormalization, AttentionRows, DataUse, Dtype, DtypeChoice, Quantization, RotationMode
from ...errors import InputError, SettingsError
from ...plain_text import as_typed
from ...teacher_cache.store import TeacherStore
from ..adapters.adapter_folder import (
    ADAPTER_RECORD,
    AdapterRecord,
    StartAdapter,
    projects_teacher,
    read_adapter_record,
)
from ..adapters.student_record import read_student_record
from ..alignment.aligned_student import AlignedStudent
from ..families.bases import load_base, read_prompt_identity, stored_dtype
from ..file_errors import is_file
from ..inputs.student_inputs import StudentInputs
from ..prompts.end_tokens import end_tokens
from ..prompts.prompt_identity import PromptIdentity, check_prompt, prompt_identity
from ..prompts.templates import TemplateOrigin, find_template
from .adapter_loading import attach_adapter, load_rotations
from .lora_merging import merge_for_inference

LoraState = Literal["merged", "apart"]


@dataclass(frozen=True, kw_only=True)
class Student(StudentInputs):
    """A loaded student and what is needed to prompt it."""

    model: AlignedStudent
    template_name: str
    template_origin: TemplateOrigin
    end_tokens: tuple[int, ...]
    """Ids that end an answer; the first is the tokenizer's end-of-sequence token."""
    base: Path
    base_fingerprint: str
    prompt: PromptIdentity
    """How the student is prompted."""
    base_data_use: DataUse | None = None
    """Data-use class of an exported student's training data; None for any other base."""
    start: StartAdapter | None = None
    """The adapter that is merged into the weights because training starts from it (start_adapter.py)."""
    adapter: AdapterRecord | None = field(default=None)
    lora: LoraState | None = None
    """Whether LoRA is merged into the weights; `None` if there is no LoRA."""
    lora_kept: float | None = None
    """Share of LoRA's update that merging kept (`merge_for_inference`); `None` if nothing was merged."""

    @property
    def dtype(self) -> str:
        """Precision of the forward pass."""
        return str(next(self.model.llava.parameters()).dtype).removeprefix("torch.")


def open_student(
    folder: Path,
    *,
    layers: Sequence[int],
    rotation: RotationMode,
    template: str | None = None,
    attention_normalization: AttentionNormalization = "sum",
    attention_rows: AttentionRows = "question",
    dtype: Dtype | None = "float32",
    quantization: Quantization | None = None,
) -> Student:
    """Load a base model folder and add the alignment parts; nothing is trainable yet.

    W is zero, or that of an exported student. `template=None` uses the template that a converted or exported folder
    records, or that of an original checkpoint's family, else the tokenizer's chat template, else `vicuna_v1`.
    `dtype=None` keeps the precision that the base is stored in.

    Raises:
        InputError: the folder is not a student, is incomplete, or its weights do not match its config.json.
        SettingsError: no such layer or template, or an exported student's W would not be applied.
    """
    requested = None if template is None else find_template(template)  # before loading the weights
    base = load_base(folder, dtype, quantization)
    name = template or base.template
    function = requested or find_template(name)
    base.llava.requires_grad_(False)
    model = AlignedStudent(
        base.llava,
        layers=layers,
        rotation=rotation,
        patches=base.images.grid.patches,
        attention_normalization=attention_normalization,
        attention_rows=attention_rows,
        known_rows=base.known_rows,
    )
    if base.record is not None and base.record.rotation == "full":
        check_keeps_rotations(f"{folder} is an exported student", base.record.layers, layers, rotation)
        load_rotations(model, folder)
    return Student(
        model=model,
        tokenizer=base.tokenizer,
        images=base.images,
        template=function,
        image_token_id=model.image_token_id,
        template_name=name,
        template_origin=base.template_origin if template is None else "option",
        end_tokens=end_tokens(base.llava, base.tokenizer, function),
        base=folder,
        base_fingerprint=base.fingerprint,
        prompt=prompt_identity(
            base.tokenizer, base.llava.generation_config, template=name, base_template=base.template
        ),
        base_data_use=None if base.record is None else base.record.data_use,
    )


def check_keeps_rotations(what: str, own: Sequence[int], layers: Sequence[int], rotation: RotationMode) -> None:
    """Check that a student keeps its W at the layers `own`; its answers would differ without it.

    Raises:
        SettingsError: it would not; `what` begins the message.
    """
    if rotation != "full" or set(layers) != set(own):
        raise SettingsError(
            f"{what} whose W acts at layer {list(own)}. To continue training it, set alignment.layer to {list(own)} "
            f"and alignment.rotation to full, not layer {list(layers)} and rotation {rotation}"
        )


def load_student(
    folder: Path | str,
    *,
    adapter: Path | str | None = None,
    device: str = "cpu",
    dtype: DtypeChoice = "auto",
    template: str | None = None,
    keep_lora_apart: bool = False,
    features: TeacherStore | None = None,
) -> Student:
    """Load a student for inference.

    `folder` is an adapter folder (its base is found through `medalign.json`) or a base model folder; `adapter` is
    optional for a base. Without an adapter the model is the plain base, or an exported student with its W.

    `dtype="auto"` uses the precision that the adapter was trained in, else the one that the base is stored in. LoRA is
    merged into the weights, which halves the work for each token; `keep_lora_apart` keeps it separate. `features` is
    the store of an adapter that projects the teacher's features, and of no other.

    Raises:
        InputError: a folder is incomplete, or the adapter was trained on a different base.
        SettingsError: `features` is missing or not needed, or its rows are not those of the training.
    """
    folder = Path(folder)
    if adapter is None and is_file(folder / ADAPTER_RECORD):
        adapter, record = folder, read_adapter_record(folder)
        folder = find_base(folder, record)
    elif adapter is not None:
        adapter, record = Path(adapter), read_adapter_record(Path(adapter))
    else:
        check_features(None, folder, features)
        exported = read_student_record(folder)
        student = open_student(
            folder,
            layers=exported.layers if exported else (),
            rotation=exported.rotation if exported else "none",
            template=template,
            dtype=inference_dtype(folder, None, dtype),
        )
        student.model.to(device).eval()
        return student
    check_features(record, adapter, features)
    student = open_base(folder, record, adapter, template=template, dtype=inference_dtype(folder, record, dtype))
    attach_adapter(student.model, record, adapter)
    kept = None if keep_lora_apart else merge_for_inference(student.model)
    student.model.to(device).eval()
    return replace(
        student,
        adapter=record,
        template_origin="adapter" if template is None else "option",
        lora=lora_state(record, keep_lora_apart=keep_lora_apart),
        lora_kept=kept,
        features=features,
    )


def check_features(record: AdapterRecord | None, adapter: Path, features: TeacherStore | None) -> None:
    """Check that an adapter that projects the teacher's features has a store with the same rows, and no other has one.

    Raises:
        SettingsError: A store is missing or not needed, or its rows are not those of the training.
    """
    if record is None or not projects_teacher(record):
        if features is not None:
            raise SettingsError(
                f"a teacher store was passed ({features.location}), but the image tokens of {adapter} come from its "
                "own vision tower: omit the store"
            )
        return
    trained_on = record.store or {}
    if features is None:
        raise SettingsError(
            f"the adapter {adapter} projects the features of teacher {trained_on.get('teacher')} in place of its own "
            "vision tower (alignment.image_tokens: teacher), so it runs only on images of a teacher store: "
            f"`medalign student evaluate --student {as_typed(adapter)} --store STORE` evaluates it, and no other "
            "command runs it"
        )
    if features.header.fingerprint != trained_on.get("fingerprint"):
        raise SettingsError(
            f"the store {features.location} has fingerprint {features.header.fingerprint[:12]} (teacher "
            f"{features.header.teacher}, profile {features.header.profile}), but {adapter} was trained on the features "
            f"of a store with fingerprint {str(trained_on.get('fingerprint'))[:12]} (teacher "
            f"{trained_on.get('teacher')}): pass a store that was extracted with the same teacher and options"
        )


def inference_dtype(base: Path, record: AdapterRecord | None, dtype: DtypeChoice) -> Dtype:
    """Precision to load a student in; `auto` is that of its adapter, else of its base.

    Raises:
        InputError: the base is not a student, or is incomplete.
    """
    if dtype != "auto":
        return dtype
    trained = None if record is None else trained_dtype(record)
    return trained or stored_dtype(base)


def trained_dtype(record: AdapterRecord) -> Dtype | None:
    """`student.dtype` of the training run that wrote an adapter; `None` if it is not recorded."""
    settings = record.settings.get("student")
    name = settings.get("dtype") if isinstance(settings, dict) else None
    return next((dtype for dtype in get_args(Dtype) if dtype == name), None)


def lora_state(record: AdapterRecord | None, *, keep_lora_apart: bool) -> LoraState | None:
    """Whether an adapter's LoRA is merged or separate when it is loaded for inference."""
    if record is None or "lora" not in record.trained.values():
        return None
    return "apart" if keep_lora_apart else "merged"


def open_base(
    folder: Path, record: AdapterRecord, adapter: Path, *, template: str | None = None, dtype: Dtype | None
) -> Student:
    """Load the base of an adapter, without the adapter's weights; `template=None` uses the adapter's template.

    Raises:
        InputError: the folder is incomplete, or is not the base that the adapter was trained on.
    """
    try:
        student = open_student(
            folder,
            layers=record.layers,
            rotation=record.rotation,
            template=template or record.template,
            attention_normalization=record.attention_normalisation,
            dtype=dtype,
        )
    except SettingsError:  # the base may no longer have the template that the adapter was trained with
        check_prompt(record.prompt, read_prompt_identity(folder, record.template), adapter, folder)
        raise
    check_base(student, record, adapter)
    return student


def check_base(student: Student, record: AdapterRecord, adapter: Path) -> None:
    """Check that a student's base is the adapter's base and is prompted in the same way.

    Raises:
        InputError: the adapter was trained on a different base, or the base is prompted differently now.
    """
    check_fingerprint(student.base, student.base_fingerprint, record, adapter)
    current = prompt_identity(
        student.tokenizer,
        student.model.stock.generation_config,
        template=record.template,
        base_template=student.prompt.base_template,
    )
    check_prompt(record.prompt, current, adapter, student.base)


def check_fingerprint(base: Path, fingerprint: str, record: AdapterRecord, adapter: Path) -> None:
    """Check that a base is the one that an adapter was trained on.

    Raises:
        InputError: it is a different base.
    """
    if fingerprint != record.base_fingerprint:
        raise InputError(
            f"the adapter {adapter} was trained on a base with fingerprint {record.base_fingerprint[:12]} "
            f"({record.base}), but {base} has fingerprint {fingerprint[:12]}. Pass the adapter's base as --student."
        )


def find_base(adapter: Path, record: AdapterRecord) -> Path:
    """Find the base's folder through the adapter's record.

    Raises:
        InputError: the folder does not exist.
    """
    try:
        base = (adapter / record.base).resolve()
        exists = base.is_dir()
    except (OSError, ValueError, RuntimeError):  # an invalid name, or a cycle of links
        exists = False
    if not exists:
        raise InputError(
            f"the base of the adapter {adapter}, {record.base}, does not exist. Pass the base folder with "
            f"--student BASE --adapter {adapter}"
        )
    return base
