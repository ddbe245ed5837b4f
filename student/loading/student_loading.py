"""Students from disk: a base model folder, alone or with an adapter."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

from ...errors import InputError, SettingsError
from ...teacher_cache.store.format.header import DataUse
from ..adapters.adapter_folder import ADAPTER_RECORD, AdapterRecord, read_adapter_record
from ..adapters.student_record import StudentRecord, read_student_record
from ..alignment.aligned_student import AlignedStudent
from ..alignment.losses import AttentionNormalisation
from ..alignment.rotation import RotationMode
from ..dtypes import Dtype, DtypeChoice
from ..families.bases import load_base, read_prompt_identity, stored_dtype
from ..families.quantized import Quantisation
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
    """A loaded student and what is needed to talk to it."""

    model: AlignedStudent
    template_name: str
    template_origin: TemplateOrigin
    end_tokens: tuple[int, ...]
    """Ids that end an answer; the first is the tokenizer's end-of-sequence token."""
    base: Path
    base_fingerprint: str
    prompt: PromptIdentity
    """How it is asked."""
    base_data_use: DataUse | None = None
    """Data-use class of what an exported student was trained with; None for any other base."""
    adapter: AdapterRecord | None = field(default=None)
    lora: LoraState | None = None
    """Whether LoRA is merged into the weights; `None`: there is none."""
    lora_kept: float | None = None
    """Share of LoRA's update that merging kept (`merge_for_inference`); `None`: nothing was merged."""

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
    attention_normalisation: AttentionNormalisation = "sum",
    dtype: Dtype | None = "float32",
    quantisation: Quantisation | None = None,
) -> Student:
    """Load a base model folder and put the alignment parts on it; nothing is trainable yet.

    W is zero, or what an exported student has already. `template=None` takes the one that a converted or exported
    folder or an original checkpoint's family names, else the tokenizer's chat template, else `vicuna_v1`. `dtype=None`
    keeps the precision that the base is stored in.

    Raises:
        InputError: the folder is no student, is not whole, or its weights do not fit its config.json.
        SettingsError: no such layer or template, or an exported student's W would be left out.
    """
    chosen = None if template is None else find_template(template)  # before the weights
    base = load_base(folder, dtype, quantisation)
    name = template or base.template
    function = chosen or find_template(name)
    base.llava.requires_grad_(False)
    model = AlignedStudent(
        base.llava,
        layers=layers,
        rotation=rotation,
        patches=base.images.grid.patches,
        attention_normalisation=attention_normalisation,
        known_rows=base.known_rows,
    )
    if base.record is not None and base.record.rotation == "full":
        _check_keeps_rotations(folder, base.record, layers, rotation)
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


def _check_keeps_rotations(folder: Path, record: StudentRecord, layers: Sequence[int], rotation: RotationMode) -> None:
    """An exported student means something else without its W."""
    if rotation != "full" or set(layers) != set(record.layers):
        raise SettingsError(
            f"{folder} is an exported student whose W acts at layer {list(record.layers)}: training on from it takes "
            f"alignment.layer {list(record.layers)} and alignment.rotation full, not layer {list(layers)} and "
            f"rotation {rotation}"
        )


def load_student(
    folder: Path | str,
    *,
    adapter: Path | str | None = None,
    device: str = "cpu",
    dtype: DtypeChoice = "auto",
    template: str | None = None,
    keep_lora_apart: bool = False,
) -> Student:
    """Load a student for inference.

    `folder` is an adapter folder (its base is found through `medalign.json`) or a base model folder, with the adapter
    given apart or not at all. Without an adapter the model is the plain base, or an exported student with its W.

    `dtype="auto"` is the precision that the adapter was trained in, else the one that the base is stored in. LoRA is
    merged into the weights, which halves the work of a token; `keep_lora_apart` leaves it beside them.

    Raises:
        InputError: a folder is incomplete, or the adapter was trained on another base.
    """
    folder = Path(folder)
    if adapter is None and is_file(folder / ADAPTER_RECORD):
        adapter, record = folder, read_adapter_record(folder)
        folder = find_base(folder, record)
    elif adapter is not None:
        adapter, record = Path(adapter), read_adapter_record(Path(adapter))
    else:
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
    )


def inference_dtype(base: Path, record: AdapterRecord | None, dtype: DtypeChoice) -> Dtype:
    """The precision to load a student in; `auto` is its adapter's, else its base's.

    Raises:
        InputError: the base is no student, or is not whole.
    """
    if dtype != "auto":
        return dtype
    trained = None if record is None else trained_dtype(record)
    return trained or stored_dtype(base)


def trained_dtype(record: AdapterRecord) -> Dtype | None:
    """`student.dtype` of the training that wrote an adapter; `None` where the record does not say."""
    settings = record.settings.get("student")
    name = settings.get("dtype") if isinstance(settings, dict) else None
    return next((dtype for dtype in get_args(Dtype) if dtype == name), None)


def lora_state(record: AdapterRecord | None, *, keep_lora_apart: bool) -> LoraState | None:
    """What becomes of an adapter's LoRA when it is loaded for inference."""
    if record is None or "lora" not in record.trained.values():
        return None
    return "apart" if keep_lora_apart else "merged"


def open_base(
    folder: Path, record: AdapterRecord, adapter: Path, *, template: str | None = None, dtype: Dtype | None
) -> Student:
    """Load the base of an adapter, without what the adapter holds; `template=None` asks it in the adapter's.

    Raises:
        InputError: the folder is incomplete, or not the base that the adapter was trained on.
    """
    try:
        student = open_student(
            folder,
            layers=record.layers,
            rotation=record.rotation,
            template=template or record.template,
            attention_normalisation=record.attention_normalisation,
            dtype=dtype,
        )
    except SettingsError:  # the base may have lost the template that the adapter was trained with
        check_prompt(record.prompt, read_prompt_identity(folder, record.template), adapter, folder)
        raise
    check_base(student, record, adapter)
    return student


def check_base(student: Student, record: AdapterRecord, adapter: Path) -> None:
    """An adapter means nothing on another base, or on one that is asked in another way.

    Raises:
        InputError: the student's base is not the one that the adapter was trained on.
    """
    check_fingerprint(student.base, student.base_fingerprint, record, adapter)
    now = prompt_identity(
        student.tokenizer,
        student.model.stock.generation_config,
        template=record.template,
        base_template=student.prompt.base_template,
    )
    check_prompt(record.prompt, now, adapter, student.base)


def check_fingerprint(base: Path, fingerprint: str, record: AdapterRecord, adapter: Path) -> None:
    """Check that a base is the one that an adapter was trained on.

    Raises:
        InputError: it is another one.
    """
    if fingerprint != record.base_fingerprint:
        raise InputError(
            f"the adapter {adapter} was trained on a base with fingerprint {record.base_fingerprint[:12]} "
            f"({record.base}); {base} has {fingerprint[:12]}. Give that base with --student."
        )


def find_base(adapter: Path, record: AdapterRecord) -> Path:
    """The base's folder, where the adapter's record says it is.

    Raises:
        InputError: it is not there.
    """
    try:
        base = (adapter / record.base).resolve()
        there = base.is_dir()
    except (OSError, ValueError, RuntimeError):  # a name that no folder can have, a circle of links
        there = False
    if not there:
        raise InputError(
            f"the adapter {adapter} names its base as {record.base}, which is not there: give the base folder with "
            f"--student BASE --adapter {adapter}"
        )
    return base
