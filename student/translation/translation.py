"""A fitted translation: applying it on any device, and its file."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Float32
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ...atomic import write_new
from ...errors import InputError
from ..file_errors import is_file, writing
from .ridge import RidgeSolution

TRANSLATION_FORMAT = "medalign-translation"
_TENSORS = ("weight", "at_cell", "mean", "scale")


@dataclass(frozen=True, kw_only=True, slots=True)
class TranslationFacts:
    """What a translation was fitted on, and how well it predicts tokens of images that it was not fitted on."""

    ridge: float
    r2: float
    """On held-out anchors."""
    r2_position: float
    """On held-out anchors, of the mean token of each cell alone: what is known without looking at an image."""
    r2_random: float | None = None
    """On held-out anchors, of a translation fitted on random features of the pixels, as the control has them; None for
    a run of an earlier version, which did not measure it."""
    target_r2: float
    """Of the untrained student's tokens of held-out targets, as predictions of their translated tokens."""
    variance: float
    """Mean over token channels of the variance of the fitted anchors' tokens; the unit of both losses."""
    fitted: int
    """Number of anchors that it was fitted on."""
    held_out: int
    """Number of anchors of `r2`."""
    tokens_dtype: str
    """Precision of the student's tokens."""
    store_fingerprint: str
    base_fingerprint: str
    anchors_sha256: str
    """Digest of the hashes of all anchors, in order; never the hashes themselves, which would identify images."""
    control: str
    """none, or random-teacher."""

    @property
    def skill(self) -> float | None:
        """Skill score against random features: the share of the error of their translation that the teacher's avoids.

        `1 - (1 - r2) / (1 - r2_random)` (Murphy 1988, with mean squared errors); None if random features leave no
        error, or were not measured.
        """
        if self.r2_random is None or not self.r2_random < 1.0:
            return None
        return 1.0 - (1.0 - self.r2) / (1.0 - self.r2_random)


class Translation(nn.Module):
    """Teacher features on the student's grid -> the student's image tokens, in float32 and without gradients."""

    weight: Tensor
    at_cell: Tensor
    mean: Tensor
    scale: Tensor

    def __init__(self, values: dict[str, Tensor]) -> None:
        super().__init__()
        for name in _TENSORS:
            self.register_buffer(name, values[name].float().contiguous(), persistent=False)

    @classmethod
    def of(cls, solution: RidgeSolution) -> "Translation":
        return cls({name: getattr(solution, name) for name in _TENSORS})

    @torch.no_grad()
    def forward(self, features: Float[Tensor, "images cells channels"]) -> Float32[Tensor, "images cells width"]:
        """Translate teacher features."""
        standard = (features.float() - self.mean) / self.scale
        return standard @ self.weight + self.at_cell


def save_translation(translation: Translation, facts: TranslationFacts, path: Path) -> None:
    """Write coefficients and facts as one safetensors file, atomically.

    Raises:
        MedalignError: The file cannot be written.
    """
    values = {name: getattr(translation, name).cpu() for name in _TENSORS}
    described = {name: getattr(facts, name) for name in facts.__dataclass_fields__}
    metadata = {"format": TRANSLATION_FORMAT, "version": "1", "facts": json.dumps(described)}
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        write_new(path, save(values, metadata))


def load_translation(path: Path) -> tuple[Translation, TranslationFacts]:
    """Read what `save_translation` wrote.

    Raises:
        InputError: The file is missing, damaged, or not a translation.
    """
    again = "Start the run again with another --out"
    if not is_file(path):
        raise InputError(f"{path} is missing: the run is incomplete. {again}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != TRANSLATION_FORMAT:
                raise ValueError(f"its format is {metadata.get('format')!r}")
            return Translation({name: file.get_tensor(name) for name in _TENSORS}), TranslationFacts(
                **json.loads(metadata["facts"])
            )
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} cannot be read as a translation: {error}. {again}") from error
