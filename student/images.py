"""How a student sees an image: padded to a square with its mean colour, resized, normalised."""

import json
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float
from PIL import Image
from torch import Tensor
from transformers import LlavaConfig

from ..errors import InputError
from ..teacher_cache.geometry import PatchGrid, fill_colour, to_pixels, to_square

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, kw_only=True, slots=True)
class StudentImages:
    """The square a student's vision tower takes and the patch grid of its image tokens."""

    size: int
    """Side of the square, in pixels."""
    grid: PatchGrid
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def pixels(self, image: Image.Image) -> Float[Tensor, "3 size size"]:
        """Normalised pixels of an RGB image, padded (never cropped) to the student's square."""
        return to_pixels(to_square(image, self.size, "pad", fill_colour(self.mean)), self.mean, self.std)


def read_student_images(folder: Path, config: LlavaConfig) -> StudentImages:
    """Work out size, grid and normalisation from a model folder and its config.

    Raises:
        InputError: the model keeps the CLS token among its image tokens, or its image tokens are not a grid.
    """
    if config.vision_feature_select_strategy != "default":
        raise InputError(
            f"{folder}: vision_feature_select_strategy is {config.vision_feature_select_strategy!r}; alignment needs "
            "'default' (one token for each patch, CLS dropped)"
        )
    vision = config.vision_config
    side = vision.image_size // vision.patch_size
    mean, std = _read_normalisation(folder)
    return StudentImages(size=vision.image_size, grid=PatchGrid(side, side), mean=mean, std=std)


def _read_normalisation(folder: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Channel means and deviations of the folder's image processor; CLIP's where it has none."""
    for name in ("preprocessor_config.json", "processor_config.json"):
        path = folder / name
        if path.is_file():
            settings = json.loads(path.read_text())
            settings = settings.get("image_processor", settings)
            if "image_mean" in settings:
                return tuple(settings["image_mean"]), tuple(settings["image_std"])
    return CLIP_MEAN, CLIP_STD
