"""Preprocessing of a student's images: padded to a square with the mean color, resized, normalized."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Float
from PIL import Image
from torch import Tensor
from transformers import CLIPVisionConfig, LlavaConfig, PreTrainedConfig

from ...errors import InputError
from ...teacher_cache.geometry.patch_grid import PatchGrid
from ...teacher_cache.geometry.pixels import to_pixels
from ...teacher_cache.geometry.square import fill_color, to_square
from ..file_errors import is_file, read_object
from .processor_settings import check_processor
from .views import ImageLayout, square_layout

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, kw_only=True, slots=True)
class StudentImages:
    """Input size, patch grid and normalization of a student's vision tower."""

    size: int
    """Side of the square, in pixels."""
    grid: PatchGrid
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def pixels(self, image: Image.Image) -> Float[Tensor, "3 size size"]:
        """Normalized pixels of a grayscale (L) or RGB image, padded (never cropped) to the student's square."""
        return to_pixels(to_square(image, self.size, "pad", fill_color(self.mean)), self.mean, self.std)

    def layout(self, width: int, height: int) -> ImageLayout:
        """The places of the image tokens in an upright image of `width` x `height` pixels."""
        return square_layout(width, height, self.grid)


def read_student_images(folder: Path, config: LlavaConfig) -> StudentImages:
    """Read size, grid and normalization from a model folder and its config.

    Raises:
        InputError: the model keeps the CLS token among its image tokens, or its image tokens are not a grid.
    """
    if config.vision_feature_select_strategy != "default":
        raise InputError(
            f"{folder}: vision_feature_select_strategy is {config.vision_feature_select_strategy!r}; alignment needs "
            "'default' (one token for each patch, CLS dropped)"
        )
    vision = config.vision_config
    check_grid(folder, vision)
    _check_feature_layer(folder, config)
    side = vision.image_size // vision.patch_size
    mean, std = _read_normalization(folder, vision.image_size)
    return StudentImages(size=vision.image_size, grid=PatchGrid(side, side), mean=mean, std=std)


def check_grid(folder: Path, vision: CLIPVisionConfig) -> None:
    """Check that a tower's images have at least one patch.

    Raises:
        InputError: `image_size` or `patch_size` is not a positive integer, or a patch is larger than an image.
    """
    check_whole_numbers(folder, vision, "image_size", "patch_size")
    if not vision.image_size >= vision.patch_size > 0:
        raise InputError(
            f"{folder / 'config.json'}: image_size is {vision.image_size} and patch_size is {vision.patch_size}, which "
            "gives no image tokens. Copy the base's config.json again"
        )


def check_whole_numbers(folder: Path, config: PreTrainedConfig, *names: str) -> None:
    """Check that values of config.json are integers; transformers also accepts other types, including null.

    Raises:
        InputError: one of them is not an integer.
    """
    for name in names:
        value = getattr(config, name)
        if not isinstance(value, int) or isinstance(value, bool):
            raise InputError(
                f"{folder / 'config.json'}: {name} is {str(value)[:80]!r}, not an integer. Copy the base's config.json "
                "again"
            )


def _check_feature_layer(folder: Path, config: LlavaConfig) -> None:
    selected, layers = config.vision_feature_layer, config.vision_config.num_hidden_layers
    indices = [selected] if isinstance(selected, int) else list(selected)
    if not indices or any(not -layers - 1 <= index <= layers for index in indices):
        raise InputError(
            f"{folder / 'config.json'}: vision_feature_layer is {selected}, but the vision tower has {layers} layers"
        )


def _read_normalization(folder: Path, side: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Read channel means and standard deviations of the folder's image processor, else use CLIP's."""
    for name in ("preprocessor_config.json", "processor_config.json"):
        path = folder / name
        if is_file(path):
            settings = read_object(path)
            settings = settings.get("image_processor", settings)
            if not isinstance(settings, dict):
                raise InputError(f"{path}: image_processor is {settings!r}, not an object")
            check_processor(path, settings, side)
            if "image_mean" in settings or "image_std" in settings:
                return _channels(path, settings, "image_mean"), _channels(path, settings, "image_std")
    return CLIP_MEAN, CLIP_STD


def _channels(path: Path, settings: Mapping[str, Any], name: str) -> tuple[float, ...]:
    """Read three numbers for the normalization of images."""
    values = settings.get(name)
    if not isinstance(values, list) or len(values) != 3 or not all(map(_is_finite_number, values)):
        raise InputError(f"{path}: {name} is {values!r}, not three numbers (red, green, blue)")
    if name == "image_std" and not all(value > 0 for value in values):
        raise InputError(f"{path}: {name} is {values!r}, but images are divided by it, so it must be positive")
    return tuple(map(float, values))


def _is_finite_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
