"""Tower and projector of a student as one module: image tokens, and their losses to translated and to old tokens.

The language model is neither run nor moved to the device.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn

from ..alignment.aligned_student import AlignedStudent
from ..precision import as_stored, computing_in
from .translation import Translation


@dataclass(frozen=True, kw_only=True)
class RegressionOutput:
    """Unreduced losses of a batch, so that batches can be averaged correctly. 1 is the error of the mean token.

    Without slots, because libraries look for tensors in `vars` of a model's output.
    """

    loss_translation: Float32[Tensor, " targets"] | None
    """Mean squared difference of each target image's tokens to their translation, in units of the variance of the
    student's own tokens; None in a batch without targets."""
    loss_keep: Float32[Tensor, " anchors"] | None
    """The same of each anchor image's tokens to its old tokens."""


class TokenRegressor(nn.Module):
    """The image side of a student, and a translation that it is trained toward."""

    def __init__(self, student: AlignedStudent) -> None:
        super().__init__()
        llava = student.stock.model
        self.vision_tower, self.multi_modal_projector = llava.vision_tower, llava.multi_modal_projector
        self._translation: list[Translation] = []  # in a list, so that DDP does not broadcast it in every step
        self.variance = 1.0
        self.config = student.config
        self._student = (student,)  # in a tuple, so that the language model is not registered

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def translate_with(self, translation: Translation, variance: float) -> None:
        """Set the translation of targets and the unit of the losses."""
        self._translation = [translation.to(self.device)]
        self.variance = variance

    def tokens(
        self, pixel_values: Float[Tensor, "images 3 size size"], autocast: torch.dtype | None
    ) -> Float[Tensor, "images cells width"]:
        """The image tokens that the language model would read."""
        with computing_in(autocast, pixel_values.device):
            return self._student[0].image_tokens(pixel_values)

    def forward(
        self,
        pixel_values: Float[Tensor, "images 3 size size"],
        features: Float[Tensor, "targets cells channels"] | None = None,
        old_tokens: Float[Tensor, "anchors cells width"] | None = None,
        autocast: torch.dtype | None = None,
    ) -> RegressionOutput:
        """Losses of a batch: target images with teacher features first, then anchors with their old tokens."""
        tokens = self.tokens(pixel_values, autocast)
        targets = 0 if features is None else len(features)
        with as_stored(pixel_values.device):
            translation = keep = None
            if features is not None:
                translation = self._loss(tokens[:targets], self._translation[0](features))
            if old_tokens is not None:
                keep = self._loss(tokens[targets:], old_tokens)
        return RegressionOutput(loss_translation=translation, loss_keep=keep)

    def _loss(self, tokens: Tensor, goal: Tensor) -> Float32[Tensor, " images"]:
        return (tokens.float() - goal.float()).square().mean(dim=(1, 2)) / self.variance
