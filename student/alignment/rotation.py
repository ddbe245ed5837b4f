"""The trainable rotation W of the image tokens (Eq. 1)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


class Rotation(nn.Module):
    """Computes (I + W) X for the image tokens X at the input of one decoder layer; W is initialized to zero.

    W is always float32, so that small updates are not lost, and is applied in the dtype of the tokens. It cannot be
    merged into the model's weights, because it acts only on image positions.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width, width, dtype=torch.float32))

    def forward(self, tokens: Float[Tensor, "... width"]) -> Float[Tensor, "... width"]:
        return tokens + functional.linear(tokens, self.weight.to(tokens.dtype)).to(tokens.dtype)
