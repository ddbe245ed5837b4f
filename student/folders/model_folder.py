"""Writing model folders atomically: transformers' Llava with tokenizer and processor."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from transformers import LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor, PreTrainedTokenizerBase
from transformers.models.llava.image_processing_llava import LlavaImageProcessor

from ... import atomic
from ...errors import InputError
from ..file_errors import reason, writing
from ..finite import check_finite
from ..prompts.written_templates import written_template
from ..quiet_transformers import quiet_transformers

SHARD_SIZE = "4GB"
LICENSE_FILES = ("LICEN[CS]E*", "NOTICE*", "licen[cs]e*", "USE_POLICY*")


def check_new_folder(out: Path) -> None:
    """Check that a folder can be created at `out` without overwriting anything.

    Raises:
        InputError: `out` exists and is not an empty folder, or is not a valid folder name.
    """
    try:
        taken = (out.exists() or out.is_symlink()) and (not out.is_dir() or any(out.iterdir()))
    except OSError as error:
        raise InputError(f"--out {out} cannot be used: {reason(error)}") from error
    if taken:
        raise InputError(f"{out} already exists. Choose another --out, or remove it")


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Yield a temporary folder next to `out`, which is renamed to `out` if the block ends without an error.

    Raises:
        MedalignError: it cannot be written, for example because the disk is full; it is removed then.
    """
    with writing(out), _new_parents(out), atomic.new_folder(out) as partial:
        yield partial
        for path in partial.iterdir():
            if path.is_file():  # a folder needs its own bits, or only root could open it
                path.chmod(0o644)  # safetensors writes files that only the owner can read


@contextmanager
def _new_parents(out: Path) -> Iterator[None]:
    """Create the missing folders above `out`; remove them again if the block fails."""
    missing = [folder for folder in out.parents if not folder.exists()]
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        for folder in missing:
            with suppress(OSError):  # another command uses it
                folder.rmdir()
        raise


def save_llava(
    model: LlavaForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    template: str,
    folder: Path,
) -> None:
    """Write model, tokenizer and processor.

    Args:
        model: the Llava.
        tokenizer: its tokenizer; its chat template is replaced, or with the template `chat` extended to images.
        mean, std: normalize the channels of images.
        template: the prompt template that the model was trained with, which becomes the folder's chat template.
        folder: an existing folder.

    Raises:
        MedalignError: some weights are NaN or infinite; nothing is written.
    """
    check_finite(
        dict(model.named_parameters()),
        f"no {str(model.dtype).removeprefix('torch.')} model was written",
        "Check the input folders. The largest float16 value is 65504, so try --dtype bfloat16 or float32",
    )
    with quiet_transformers():
        model.save_pretrained(folder, max_shard_size=SHARD_SIZE)
    tokenizer.chat_template = written_template(template, tokenizer)
    _processor(model.config, tokenizer, mean, std).save_pretrained(folder)


def _processor(config: LlavaConfig, tokenizer: Any, mean: Sequence[float], std: Sequence[float]) -> LlavaProcessor:
    """transformers' processor with medalign's geometry: images are padded to a square with the mean color."""
    image_token = tokenizer.convert_ids_to_tokens(config.image_token_id)
    if image_token is None:
        raise InputError(
            f"{tokenizer.name_or_path}: the tokenizer has no token with id {config.image_token_id}, which "
            "config.json gives as image_token_id"
        )
    side = config.vision_config.image_size
    return LlavaProcessor(
        image_processor=LlavaImageProcessor(
            do_pad=True,
            size={"shortest_edge": side},
            crop_size={"height": side, "width": side},
            image_mean=list(mean),
            image_std=list(std),
        ),
        tokenizer=tokenizer,
        patch_size=config.vision_config.patch_size,
        vision_feature_select_strategy=config.vision_feature_select_strategy,
        num_additional_image_tokens=1,
        image_token=image_token,
    )


def copy_licenses(source: Path, folder: Path) -> list[str]:
    """Copy the license and notice files of a model folder and return their names."""
    files = sorted({path for pattern in LICENSE_FILES for path in source.glob(pattern) if path.is_file()})
    for path in files:
        shutil.copyfile(path, folder / path.name)
    return [path.name for path in files]
