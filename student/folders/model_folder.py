"""Model folders as they are written: transformers' Llava with tokenizer and processor, whole or not at all."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor, PreTrainedTokenizerBase
from transformers.models.llava.image_processing_llava import LlavaImageProcessor

from ... import atomic
from ...errors import InputError
from ..file_errors import reason, writing
from ..finite import check_finite
from ..quiet_transformers import quiet_transformers

SHARD_SIZE = "4GB"
LICENCE_FILES = ("LICEN[CS]E*", "NOTICE*", "licen[cs]e*", "USE_POLICY*")


def check_new_folder(out: Path) -> None:
    """Check that a model folder can be made at `out`: nothing that exists is overwritten.

    Raises:
        InputError: it exists and is not an empty folder, or no folder can have this name.
    """
    try:
        taken = out.exists() and (not out.is_dir() or any(out.iterdir()))
    except OSError as error:
        raise InputError(f"--out {out} cannot be used: {reason(error)}") from error
    if taken:
        raise InputError(f"{out} exists already: give --out another folder, or remove it")


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder beside `out` to fill, which becomes `out` in one step when the block ends without an error.

    Raises:
        MedalignError: it cannot be written, for example because the disk is full; nothing is left behind.
    """
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with atomic.new_folder(out) as partial:
            yield partial
            for file in partial.iterdir():
                file.chmod(0o644)  # safetensors writes files that only their owner can read


def save_llava(
    model: LlavaForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    folder: Path,
) -> None:
    """Write model, tokenizer and processor; `mean` and `std` normalise the images' channels.

    Raises:
        MedalignError: some weights are NaN or infinite; nothing is written.
    """
    check_finite(
        dict(model.named_parameters()),
        f"no model in {str(model.dtype).removeprefix('torch.')} is written",
        "Check the folders it is made of; float16 ends at 65504, so try --dtype bfloat16 or float32",
    )
    with quiet_transformers():
        model.save_pretrained(folder, max_shard_size=SHARD_SIZE)
    _processor(model.config, tokenizer, mean, std).save_pretrained(folder)


def _processor(config: LlavaConfig, tokenizer: Any, mean: Sequence[float], std: Sequence[float]) -> LlavaProcessor:
    """transformers' own processor with our geometry: padded to a square with the mean colour."""
    image_token = tokenizer.convert_ids_to_tokens(config.image_token_id)
    if image_token is None:
        raise InputError(
            f"{tokenizer.name_or_path}: its tokenizer has no token with the id {config.image_token_id}, which "
            "config.json says is the image token"
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


def copy_licences(source: Path, folder: Path) -> list[str]:
    """Copy the licence and notice files of a model folder; their names."""
    found = sorted({path for pattern in LICENCE_FILES for path in source.glob(pattern) if path.is_file()})
    for path in found:
        shutil.copyfile(path, folder / path.name)
    return [path.name for path in found]
