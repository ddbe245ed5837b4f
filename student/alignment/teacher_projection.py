"""A trained projection of the teacher's features to image tokens, in place of vision tower and projector."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


class TeacherProjection(nn.Module):
    """Computes image tokens from E_v: two linear layers with a GELU between them, as in LLaVA's projector.

    Each patch is first scaled to mean 0 and variance 1 over its channels, because E_v is a residual stream before its
    last norm. The weights are float32, and are initialized as torch initializes linear layers.
    """

    def __init__(self, channels: int, width: int) -> None:
        """`channels`: width of E_v; `width`: of the language model."""
        super().__init__()
        self.channels = channels
        self.linear_1 = nn.Linear(channels, width)
        self.linear_2 = nn.Linear(width, width)

    def forward(self, E_v: Float[Tensor, "images patches channels"]) -> Float[Tensor, "images patches width"]:
        scaled = functional.layer_norm(E_v.float(), (self.channels,))
        tokens: Tensor = self.linear_2(functional.gelu(self.linear_1(scaled)))
        return tokens
