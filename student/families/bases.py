"""Base models from disk: transformers' Llava or the original format, with tokenizer, image geometry and template."""

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from transformers import GenerationConfig, LlavaConfig, LlavaForConditionalGeneration, PreTrainedTokenizerBase

from ...errors import InputError, SettingsError
from ..adapters.adapter_folder import ROTATION_FILE
from ..adapters.student_record import STUDENT_RECORD, StudentRecord, read_student_record
from ..dtypes import Dtype
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
from .quantized import Quantisation, quantisation_config, quantised_device_map

_MOST_LAYERS = 1000
"""The largest published models have some 130; a damaged number of them would be built until memory ends."""

ELSEWHERE = ("transformers_weights", "quantization_config", "kernel_config", "fusion_config")
"""Fields by which a config.json makes transformers load other values than those in the folder's usual files."""


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
    text = read_text_side(folder)
    chosen = None if dtype is None else getattr(torch, dtype)
    if text.original is not None:
        if quantisation is not None:
            raise SettingsError(
                f"student.quantization is {quantisation!r}, but {folder} is an original checkpoint: "
                "`medalign student convert` makes a folder that can be quantised"
            )
        llava = load_original(text.original, chosen)
        fingerprint = fingerprint_original(text.original)
    else:
        llava = load_llava(folder, dtype, quantisation)
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
    """What a base's folder says of how it is asked, without its weights."""

    original: OriginalCheckpoint | None
    """None: transformers' format."""
    tokenizer: PreTrainedTokenizerBase
    """As it is written beside weights; it may lack a pad token."""
    generation: GenerationConfig | None
    """None: the special tokens of config.json are the model's."""
    template: str
    template_origin: TemplateOrigin
    record: StudentRecord | None
    known_rows: int | None
    images: Path
    """Folder with the image processor's settings."""


def read_text_side(folder: Path) -> TextSide:
    """Read everything of a base but its weights.

    Raises:
        InputError: the folder is no student, or one of these files is damaged.
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
    """An id that no row of the embedding table belongs to would end the first forward pass."""
    rows = llava.get_input_embeddings().weight.shape[0]
    token_id: object = llava.config.image_token_id
    if not isinstance(token_id, int) or not 0 <= token_id < rows:
        raise InputError(
            f"{folder / 'config.json'}: image_token_id is {llava.config.image_token_id} (where it is missing, "
            f"transformers' default), but the embedding table has {rows} rows"
        )
    token, highest = max(tokenizer.get_vocab().items(), key=lambda item: item[1])
    if highest >= rows:
        raise InputError(
            f"{folder}: its tokenizer gives {token!r} the id {highest}, but the embedding table has {rows} rows: the "
            "tokenizer is another model's"
        )


def read_prompt_identity(folder: Path, template: str | None) -> PromptIdentity:
    """How a base is asked, without reading its weights; `template=None`: in its own.

    Raises:
        InputError: the folder is no student, or one of these files is damaged.
    """
    text = read_text_side(folder)
    generation = text.generation or GenerationConfig.from_model_config(read_llava_config(folder))
    return prompt_identity(text.tokenizer, generation, template=template or text.template, base_template=text.template)


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
    """What adapters know a base by, in whichever format it is (student/families/fingerprints.py).

    Raises:
        InputError: the folder is no student, or is not whole.
    """
    if is_original(folder):
        return fingerprint_original(read_original(folder))
    config = read_llava_config(folder)
    return fingerprint_folder(weight_files(folder), config)


def stored_dtype(folder: Path) -> Dtype:
    """The precision that a base is stored in: what its config.json names, else that of most of its weights.

    Raises:
        InputError: the folder is no student, or is not whole.
    """
    if is_original(folder):
        found = read_original(folder).dtype
    else:
        found = read_llava_config(folder).dtype
        if found is None:
            numbers: Counter[torch.dtype] = Counter()
            for tensor in list_tensors(weight_files(folder)).values():
                numbers[tensor.dtype] += math.prod(tensor.shape)
            found = numbers.most_common(1)[0][0]
    name = str(found).removeprefix("torch.")
    return next((dtype for dtype in get_args(Dtype) if dtype == name), "float32")


def read_llava_config(folder: Path) -> LlavaConfig:
    """config.json of a transformers Llava, the only kind that is left to be a student.

    Raises:
        InputError: it is no Llava's or damaged, or other values would be loaded than those in the weight files.
    """
    config = read_config(folder)
    kind = config.get("model_type")
    if kind != "llava":
        raise InputError(
            f"{folder} holds a {kind!r} model; a student is a transformers Llava, or an original LLaVA-Med-1.5, "
            "HuatuoGPT-Vision or LLaVA-1.5. `medalign student init` makes one from a causal LM and a vision tower."
        )
    elsewhere = [name for name in ELSEWHERE if config.get(name) is not None]
    if elsewhere:
        raise InputError(
            f"{folder / 'config.json'} sets {', '.join(elsewhere)}, which is not read: a student's weights are its "
            "folder's model.safetensors or shards, unquantized"
        )
    for name in ("text_config", "vision_config"):
        if not isinstance(config.get(name), dict):
            found = "missing" if name not in config else repr(config[name])[:80]
            raise InputError(
                f"{folder / 'config.json'}: {name} is {found}, not an object; transformers would build its default "
                "model in its place, with 7 billion weights. Copy the file of the base again"
            )
        layers = config[name].get("num_hidden_layers")
        if isinstance(layers, int) and layers > _MOST_LAYERS:
            raise InputError(
                f"{folder / 'config.json'}: {name}.num_hidden_layers is {layers}, more than the {_MOST_LAYERS} that a "
                "model may have. Copy the file of the base again"
            )
    check_no_adapter(folder)
    with reading(folder / "config.json"):
        llava = LlavaConfig.from_pretrained(folder, local_files_only=True)
    check_whole_numbers(folder, llava, "image_token_id")
    check_grid(folder, llava.vision_config)
    return llava


def weight_files(folder: Path) -> list[Path]:
    """The files that a student in transformers' format is loaded from: its weights, and W of an exported one.

    Raises:
        InputError: there are none, or a W lies there that no record says how to apply.
    """
    files = find_weight_files(folder)
    if not files:
        raise InputError(f"{folder} has a config.json but no weights (*.safetensors)")
    record, rotation = read_student_record(folder), folder / ROTATION_FILE
    acts = record is not None and record.rotation == "full"
    if is_file(rotation) and not acts:
        raise InputError(
            f"{folder} holds {ROTATION_FILE}, but "
            + (f"it has no {STUDENT_RECORD}" if record is None else f"its {STUDENT_RECORD} says rotation none")
            + ": without that record W would be left out. Copy the exported folder whole, or remove the file"
        )
    return [*files, rotation] if acts else files


def load_llava(
    folder: Path, dtype: Dtype | None, quantisation: Quantisation | None = None
) -> LlavaForConditionalGeneration:
    """Load a transformers Llava folder strictly, on sdpa attention.

    Raises:
        InputError: not a Llava folder, a file is damaged, or weights are missing, left over, of another shape, not
            floating-point or not finite.
    """
    config = read_llava_config(folder)
    stored = list_tensors(weight_files(folder))  # each file is whole, and holds tensors of the right kind alone
    check_size(folder, config, sum(math.prod(tensor.shape) for tensor in stored.values()))
    quantised: dict[str, Any] = {}
    if quantisation is not None:
        quantised["quantization_config"] = quantisation_config(quantisation, getattr(torch, dtype or "float32"))
        quantised["device_map"] = quantised_device_map()
    with reading(folder, "model"), quiet_transformers():  # its report of the same problems follows as an error
        model, loaded = LlavaForConditionalGeneration.from_pretrained(
            folder,
            dtype="auto" if dtype is None else getattr(torch, dtype),
            attn_implementation="sdpa",
            local_files_only=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # they are in the report
            output_loading_info=True,
            **quantised,
        )
    problems = {name: sorted(map(str, keys)) for name, keys in loaded.items() if keys}
    if problems:
        lines = [f"  {name}: {len(keys)}, first: {', '.join(keys[:3])}" for name, keys in problems.items()]
        raise InputError(f"{folder}: its weights do not fit its config.json\n" + "\n".join(lines))
    check_finite_model(model, folder)
    return model
