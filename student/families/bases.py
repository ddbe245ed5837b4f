"""Loading base models in transformers' or the original format, with tokenizer, image geometry and template."""

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from transformers import GenerationConfig, LlavaConfig, LlavaForConditionalGeneration, PreTrainedTokenizerBase

from ...choices import Dtype, Quantization
from ...errors import InputError, SettingsError
from ..adapters.adapter_folder import ROTATION_FILE
from ..adapters.student_record import STUDENT_RECORD, StudentRecord, read_student_record
from ..file_errors import is_file, reading
from ..inputs.image_processing import StudentImages, check_grid, check_whole_numbers, read_student_images
from ..prompts.chat_template import image_name, read_chat_template
from ..prompts.prompt_identity import PromptIdentity, prompt_identity
from ..prompts.templates import TemplateOrigin
from ..quiet_transformers import quiet_transformers
from .base_files import check_finite_model, check_no_adapter, check_size, read_generation
from .fingerprints import fingerprint_folder, fingerprint_original
from .image_token import forget_image_token, read_tokenizer
from .original import OriginalCheckpoint, is_original, load_original, read_original
from .original.original_config import read_config
from .original.original_format import FAMILIES
from .original.weight_index import find_weight_files, list_tensors
from .quantized import quantization_config, quantized_device_map

_MOST_LAYERS = 1000
"""The largest published models have about 130 layers; building a damaged number would exhaust the memory."""

OTHER_WEIGHT_FIELDS = ("transformers_weights", "quantization_config", "kernel_config", "fusion_config")
"""Fields of config.json with which transformers loads other values than those in the usual weight files."""


@dataclass(frozen=True, kw_only=True)
class Base:
    """A base model as read from its folder."""

    llava: LlavaForConditionalGeneration
    tokenizer: PreTrainedTokenizerBase
    """Reads "<image>" like any other text; the image token is used only by its id."""
    images: StudentImages
    template: str
    """Name of the default prompt template."""
    template_origin: TemplateOrigin
    record: StudentRecord | None
    """Record that `medalign student convert` or `export` wrote."""
    known_rows: int | None
    """Rows of the published embedding tables, without the row added for `<image>`; None means all rows."""
    fingerprint: str


def load_base(folder: Path, dtype: Dtype | None, quantization: Quantization | None = None) -> Base:
    """Load a base model; `dtype=None` keeps the stored precision.

    Raises:
        InputError: the folder is not a student, is incomplete, or its weights do not match its config.json.
    """
    text = read_text_side(folder)
    torch_dtype = None if dtype is None else getattr(torch, dtype)
    if text.original is not None:
        if quantization is not None:
            raise SettingsError(
                f"student.quantization is {quantization!r}, but {folder} is an original checkpoint, which cannot be "
                "quantized. Convert it with `medalign student convert` first"
            )
        llava = load_original(text.original, torch_dtype)
        fingerprint = fingerprint_original(text.original)
    else:
        llava = load_llava(folder, dtype, quantization)
        fingerprint = fingerprint_folder(weight_files(folder), llava.config)
    images = read_student_images(text.images, llava.config)
    if text.tokenizer.pad_token_id is None:
        text.tokenizer.pad_token = text.tokenizer.eos_token
    _check_rows(folder, llava, text.tokenizer)
    _name_image_token(text.tokenizer, llava.config.image_token_id)
    forget_image_token(text.tokenizer, llava.config.image_token_id)
    return Base(
        llava=llava,
        tokenizer=text.tokenizer,
        images=images,
        template=text.template,
        template_origin=text.template_origin,
        record=text.record,
        known_rows=text.known_rows,
        fingerprint=fingerprint,
    )


@dataclass(frozen=True, kw_only=True)
class TextSide:
    """Tokenizer, template and other prompt settings of a base's folder, without its weights."""

    original: OriginalCheckpoint | None
    """None for transformers' format."""
    tokenizer: PreTrainedTokenizerBase
    """As stored; it may have no pad token."""
    generation: GenerationConfig | None
    """None if the model uses the special tokens of config.json."""
    template: str
    template_origin: TemplateOrigin
    record: StudentRecord | None
    known_rows: int | None
    images: Path
    """Folder with the image processor's settings."""


def read_text_side(folder: Path) -> TextSide:
    """Read everything of a base except its weights.

    Raises:
        InputError: the folder is not a student, or one of these files is damaged.
    """
    if is_original(folder):
        checkpoint = read_original(folder)
        return TextSide(
            original=checkpoint,
            tokenizer=checkpoint.tokenizer,
            generation=checkpoint.generation,
            template=checkpoint.family.template,
            template_origin="family" if checkpoint.family.knows(checkpoint.rows) else "guess",
            record=None,
            known_rows=checkpoint.rows,
            images=checkpoint.tower.folder or folder,
        )
    read_llava_config(folder)
    tokenizer, record = read_tokenizer(folder), read_student_record(folder)
    tokenizer.chat_template = read_chat_template(folder, tokenizer)
    template, origin = _template(record, tokenizer)
    return TextSide(
        original=None,
        tokenizer=tokenizer,
        generation=read_generation(folder),
        template=template,
        template_origin=origin,
        record=record,
        known_rows=record.known_rows if record else None,
        images=folder,
    )


def _check_rows(folder: Path, llava: LlavaForConditionalGeneration, tokenizer: PreTrainedTokenizerBase) -> None:
    """Check that every token id has a row in the embedding table; otherwise the first forward pass would fail."""
    rows = llava.get_input_embeddings().weight.shape[0]
    token_id: object = llava.config.image_token_id
    if not isinstance(token_id, int) or not 0 <= token_id < rows:
        raise InputError(
            f"{folder / 'config.json'}: image_token_id is {llava.config.image_token_id} (transformers' default if it "
            f"is missing), but the embedding table has {rows} rows"
        )
    token, highest = max(tokenizer.get_vocab().items(), key=lambda item: item[1])
    if highest >= rows:
        raise InputError(
            f"{folder}: the tokenizer gives {token!r} the id {highest}, but the embedding table has {rows} rows. The "
            "tokenizer belongs to a different model"
        )


def read_prompt_identity(folder: Path, template: str | None) -> PromptIdentity:
    """Read how a base is prompted, without its weights; `template=None` uses its default template.

    Raises:
        InputError: the folder is not a student, or one of these files is damaged.
    """
    text = read_text_side(folder)
    generation = text.generation or GenerationConfig.from_model_config(read_llava_config(folder))
    return prompt_identity(text.tokenizer, generation, template=template or text.template, base_template=text.template)


def _template(record: StudentRecord | None, tokenizer: PreTrainedTokenizerBase) -> tuple[str, TemplateOrigin]:
    """Return the default template of a folder in transformers' format, and where it comes from."""
    if record is not None:
        return record.template, "guess" if _was_guessed(record) else "record"
    return ("chat", "folder") if tokenizer.chat_template else ("vicuna_v1", "guess")


def _was_guessed(record: StudentRecord) -> bool:
    """Whether a converted folder has its family's template but not the family's language model."""
    family = next((family for family in FAMILIES if family.name == record.family), None)
    if family is None or record.known_rows is None or record.adapter_fingerprint is not None:
        return False
    return record.template == family.template and not family.knows(record.known_rows)


def _name_image_token(tokenizer: PreTrainedTokenizerBase, image_token_id: int) -> None:
    """Keep the name of the image token for chat templates, before the tokenizer forgets it."""
    name = tokenizer.convert_ids_to_tokens(image_token_id)
    if isinstance(name, str) and name != image_name(tokenizer):
        tokenizer.image_token = name


def written_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Read the tokenizer of a base for writing: with the name of the image token, and a pad token."""
    if is_original(folder):
        tokenizer = read_original(folder).tokenizer
    else:
        tokenizer = read_tokenizer(folder)
        tokenizer.chat_template = read_chat_template(folder, tokenizer)  # the processor's can be in a separate file
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def fingerprint_base(folder: Path) -> str:
    """Compute the fingerprint of a base in any format (student/families/fingerprints.py).

    Raises:
        InputError: the folder is not a student, or is incomplete.
    """
    if is_original(folder):
        return fingerprint_original(read_original(folder))
    config = read_llava_config(folder)
    return fingerprint_folder(weight_files(folder), config)


def stored_dtype(folder: Path) -> Dtype:
    """Precision that a base is stored in: that in config.json, else that of most of its weights.

    Raises:
        InputError: the folder is not a student, or is incomplete.
    """
    if is_original(folder):
        stored = read_original(folder).dtype
    else:
        stored = read_llava_config(folder).dtype
        if stored is None:
            counts: Counter[torch.dtype] = Counter()
            for tensor in list_tensors(weight_files(folder)).values():
                counts[tensor.dtype] += math.prod(tensor.shape)
            stored = counts.most_common(1)[0][0]
    name = str(stored).removeprefix("torch.")
    return next((dtype for dtype in get_args(Dtype) if dtype == name), "float32")


def read_llava_config(folder: Path) -> LlavaConfig:
    """Read config.json of a transformers Llava.

    Raises:
        InputError: it is not of a Llava, is damaged, or makes transformers load other values than the weight files'.
    """
    config = read_config(folder)
    kind = config.get("model_type")
    if kind != "llava":
        raise InputError(
            f"{folder} contains a {kind!r} model; a student is a transformers Llava, or an original LLaVA-Med-1.5, "
            "HuatuoGPT-Vision or LLaVA-1.5. Create one from a causal LM and a vision tower with "
            "`medalign student init`."
        )
    unsupported = [name for name in OTHER_WEIGHT_FIELDS if config.get(name) is not None]
    if unsupported:
        raise InputError(
            f"{folder / 'config.json'} sets {', '.join(unsupported)}, which is not supported: a student's weights must "
            "be in its folder's model.safetensors or shards, unquantized"
        )
    for name in ("text_config", "vision_config"):
        if not isinstance(config.get(name), dict):
            value = "missing" if name not in config else repr(config[name])[:80]
            raise InputError(
                f"{folder / 'config.json'}: {name} is {value}, not an object, so transformers would build its default "
                "model with 7 billion weights. Copy the base's config.json again"
            )
        layers = config[name].get("num_hidden_layers")
        if isinstance(layers, int) and layers > _MOST_LAYERS:
            raise InputError(
                f"{folder / 'config.json'}: {name}.num_hidden_layers is {layers}, more than the maximum of "
                f"{_MOST_LAYERS}. Copy the base's config.json again"
            )
    check_no_adapter(folder)
    with reading(folder / "config.json"):
        llava = LlavaConfig.from_pretrained(folder, local_files_only=True)
    check_whole_numbers(folder, llava, "image_token_id")
    check_grid(folder, llava.vision_config)
    return llava


def weight_files(folder: Path) -> list[Path]:
    """List the files that a student in transformers' format is loaded from: weights, and W of an exported student.

    Raises:
        InputError: there are no weight files, or there is a W but no record of how to apply it.
    """
    files = find_weight_files(folder)
    if not files:
        raise InputError(f"{folder} has a config.json but no weights (*.safetensors)")
    record, rotation = read_student_record(folder), folder / ROTATION_FILE
    applies_rotation = record is not None and record.rotation == "full"
    if is_file(rotation) and not applies_rotation:
        raise InputError(
            f"{folder} contains {ROTATION_FILE}, but "
            + (f"no {STUDENT_RECORD}" if record is None else f"its {STUDENT_RECORD} says rotation none")
            + ", so W would not be applied. Copy the complete exported folder again, or remove the file"
        )
    return [*files, rotation] if applies_rotation else files


def load_llava(
    folder: Path, dtype: Dtype | None, quantization: Quantization | None = None
) -> LlavaForConditionalGeneration:
    """Load a transformers Llava folder strictly, with sdpa attention.

    Raises:
        InputError: not a Llava folder, a file is damaged, or weights are missing, unexpected, of the wrong shape, not
            floating-point or not finite.
    """
    config = read_llava_config(folder)
    stored = list_tensors(weight_files(folder))  # checks that each file is complete and contains only weights
    check_size(folder, config, sum(math.prod(tensor.shape) for tensor in stored.values()))
    loading: dict[str, Any] = {}
    if quantization is not None:
        loading["quantization_config"] = quantization_config(quantization, getattr(torch, dtype or "float32"))
        loading["device_map"] = quantized_device_map()
    with reading(folder, "model"), quiet_transformers():  # the problems that it reports are raised below
        model, loaded = LlavaForConditionalGeneration.from_pretrained(
            folder,
            dtype="auto" if dtype is None else getattr(torch, dtype),
            attn_implementation="sdpa",
            local_files_only=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # reported below
            output_loading_info=True,
            **loading,
        )
    problems = {name: sorted(map(str, keys)) for name, keys in loaded.items() if keys}
    if problems:
        lines = [f"  {name}: {len(keys)}, first: {', '.join(keys[:3])}" for name, keys in problems.items()]
        raise InputError(f"{folder}: the weights do not match config.json\n" + "\n".join(lines))
    check_finite_model(model, folder)
    return model
