"""The two parts of a new student: a vision tower, and a language model with an image token."""

import io
import math
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stderr
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    CLIPVisionConfig,
    CLIPVisionModel,
)

from ...errors import InputError, MedalignError, SettingsError
from ...plain_text import counted
from ...suggestions import spelling
from ..families.base_files import check_finite_model, check_no_adapter
from ..families.image_token import add_image_token, check_same_ids, read_tokenizer
from ..families.original.weight_index import find_weight_files, list_tensors
from ..file_errors import is_file, read_object, reading, reason
from ..inputs.image_processing import check_grid

PAD_TOKEN = "<pad>"
TINY_PATCH = 14


def tiny_tower(image_tokens: int) -> CLIPVisionModel:
    """Create a small random tower with `image_tokens` patches of 14 pixels; the caller seeds it.

    Raises:
        SettingsError: `image_tokens` is not a perfect square.
    """
    side = math.isqrt(image_tokens)
    if side < 1 or side * side != image_tokens:
        raise SettingsError(
            f"{image_tokens} image tokens do not form a square grid. Use a perfect square, for example 576 (24x24) or "
            "196 (14x14)"
        )
    config = CLIPVisionConfig(
        hidden_size=192,
        intermediate_size=768,
        num_hidden_layers=4,
        num_attention_heads=3,
        image_size=side * TINY_PATCH,
        patch_size=TINY_PATCH,
    )
    return CLIPVisionModel(config)


def read_tower(folder: Path, image_tokens: int) -> CLIPVisionModel:
    """Load the vision tower of a CLIP folder, or of a folder with a vision tower only.

    Raises:
        InputError: the folder does not exist, or weights are missing.
        SettingsError: the tower has a different number of image tokens.
    """
    config = _read_config(folder, "vision tower")
    if config.model_type not in ("clip", "clip_vision_model"):
        raise InputError(
            f"{folder} contains a {config.model_type!r} model; --vision takes a CLIP model, a CLIP tower or 'tiny'"
        )
    _check_weights(folder)
    with reading(folder, "vision tower"):
        tower, loaded = CLIPVisionModel.from_pretrained(
            folder,
            local_files_only=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # reported below
            output_loading_info=True,
        )
    if loaded["missing_keys"] or loaded["mismatched_keys"]:
        wrong = sorted(map(str, [*loaded["missing_keys"], *loaded["mismatched_keys"]]))
        subject = counted(len(wrong), "weight of the vision tower is", "weights of the vision tower are")
        raise InputError(f"{folder}: {subject} missing or of the wrong shape, first: {wrong[0]}")
    check_finite_model(tower, folder)
    check_grid(folder, tower.config)
    patches = (tower.config.image_size // tower.config.patch_size) ** 2
    if patches != image_tokens:
        raise SettingsError(
            f"the vision tower {folder} has {patches} image tokens, not {image_tokens}. Pass --image-tokens {patches}"
        )
    return tower


def read_language_model(llm: Path, gguf_file: str | None) -> tuple[Any, Any]:
    """Load a causal language model in its stored precision (float32 for GGUF), and its tokenizer.

    Raises:
        InputError: there is no such model, weights are missing, or the tokenizer has no end-of-sequence token.
    """
    folder, gguf_file = _find_gguf(llm, gguf_file)
    if gguf_file is None:
        _read_config(folder, "language model")
        _check_weights(folder)
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    options |= {"gguf_file": gguf_file} if gguf_file else {"ignore_mismatched_sizes": True}
    try:
        # transformers' setting does not silence the progress bar of the GGUF reader.
        with redirect_stderr(io.StringIO()) if gguf_file else nullcontext():
            language, loaded = AutoModelForCausalLM.from_pretrained(
                folder, dtype=torch.float32 if gguf_file else "auto", output_loading_info=True, **options
            )
        tokenizer = AutoTokenizer.from_pretrained(folder, **options) if gguf_file else read_tokenizer(folder)
    except (MedalignError, MemoryError, torch.OutOfMemoryError, Warning):
        raise
    except Exception as error:
        raise InputError(f"{llm} cannot be loaded as a causal language model: {reason(error)}") from error
    if loaded["missing_keys"] or loaded["mismatched_keys"]:
        wrong = sorted(map(str, [*loaded["missing_keys"], *loaded["mismatched_keys"]]))
        subject = counted(len(wrong), "weight of the language model is", "weights of the language model are")
        raise InputError(f"{llm}: {subject} missing or of the wrong shape, first: {wrong[0]}")
    if tokenizer.eos_token_id is None:
        raise InputError(f"{llm}: the tokenizer has no end-of-sequence token, so answers would never end")
    check_finite_model(language, llm)
    return language, tokenizer


def _check_weights(folder: Path) -> None:
    """Check that a folder's weight files are complete, and that transformers would load nothing else."""
    check_no_adapter(folder)
    list_tensors(find_weight_files(folder))


def _find_gguf(llm: Path, gguf_file: str | None) -> tuple[Path, str | None]:
    """Return the folder and the GGUF file name, which is `None` for a transformers folder."""
    if is_file(llm) and llm.suffix == ".gguf":
        return llm.parent, llm.name
    if not llm.is_dir():
        if not llm.exists():
            raise InputError(f"--llm {llm} does not exist{spelling(llm)}")
        raise InputError(f"--llm {llm} is not a folder or a GGUF file")
    if gguf_file is not None:
        if not (llm / gguf_file).is_file():
            raise InputError(f"{llm} has no file {gguf_file}")
        return llm, gguf_file
    if (llm / "config.json").is_file():
        return llm, None
    gguf_files = sorted(path.name for path in llm.glob("*.gguf"))
    if len(gguf_files) > 1:
        raise InputError(
            f"{llm} contains {len(gguf_files)} GGUF files. Pass one of them as --llm: {', '.join(gguf_files)}"
        )
    return llm, gguf_files[0] if gguf_files else None


def _read_config(folder: Path, part: str) -> Any:
    if not is_file(folder / "config.json"):
        raise InputError(f"{folder} is not a {part}: it has no config.json")
    read_object(folder / "config.json")
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Warning:
        raise
    except Exception as error:
        raise InputError(f"{folder} is not a {part} that transformers supports: {reason(error)}") from error


def add_tokens(language: Any, tokenizer: Any) -> int:
    """Add `<image>` to the tokenizer, and a pad token if it has none, and grow the embedding tables.

    New rows are initialized to the mean of the existing rows, so that they do not stand out before training.

    Returns:
        The id of `<image>`.

    Raises:
        InputError: the tokenizer also gives that id to another token.
    """
    known = dict(tokenizer.get_vocab())
    image_token_id = add_image_token(tokenizer)
    if tokenizer.pad_token_id is None:
        tokenizer.add_special_tokens({"pad_token": PAD_TOKEN})
    check_same_ids(known, tokenizer)
    vocabulary = tokenizer.get_vocab()
    rows = language.get_input_embeddings().weight.shape[0]
    needed = max(vocabulary.values()) + 1
    if needed > rows:
        language.resize_token_embeddings(needed, mean_resizing=False)
    new_ids = {number for token, number in vocabulary.items() if token not in known}
    old_ids = sorted(number for number in set(known.values()) if number < rows)
    _start_at_mean(language, sorted(new_ids | set(range(rows, needed))), old_ids)
    return image_token_id


@torch.no_grad()
def _start_at_mean(language: Any, new_ids: Sequence[int], old_ids: Sequence[int]) -> None:
    """Set the rows of new tokens to the mean of the existing tokens' rows; ids need not be contiguous."""
    for table in (language.get_input_embeddings(), language.get_output_embeddings()):
        if table is not None and new_ids:
            table.weight[list(new_ids)] = table.weight[list(old_ids)].float().mean(dim=0).to(table.weight.dtype)
