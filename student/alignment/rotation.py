"""The trainable rotation W of the image tokens (Eq. 1)."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

RotationMode = Literal["full", "train_only", "none"]
"""Where W acts. `full`: on the image tokens, in training and in inference (the paper). `train_only`: on what L_vis
compares alone, so the trained model runs without it. `none`: there is no W."""


class Rotation(nn.Module):
    """Image tokens become (I + W) X at the input of one decoder layer; W is zero at the start.

    W is kept in float32 whatever the model's precision, so that small steps are not lost, and is applied in the
    tokens' own dtype. It cannot be folded into the model's weights: it acts on image positions alone.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width, width, dtype=torch.float32))

    def forward(self, tokens: Float[Tensor, "... width"]) -> Float[Tensor, "... width"]:
        return tokens + functional.linear(tokens, self.weight.to(tokens.dtype)).to(tokens.dtype)
