"""A convolutional stem for tiny towers: texture within a patch is seen before the first transformer block."""

from jaxtyping import Float
from torch import Tensor, nn

REDUCTION = 8
"""Pixels per patch side, three strides of 2; the patch size of every teacher with this stem."""
GROUPS = 4


class ConvStem(nn.Module):
    """Three 3x3 convolutions of stride 2, in place of open_clip's `conv1`, whose output it has the shape of."""

    def __init__(self, width: int) -> None:
        super().__init__()
        quarter, half = width // 4, width // 2
        self.layers = nn.Sequential(
            nn.Conv2d(3, quarter, 3, stride=2, padding=1),
            nn.GroupNorm(GROUPS, quarter),
            nn.GELU(),
            nn.Conv2d(quarter, half, 3, stride=2, padding=1),
            nn.GroupNorm(GROUPS, half),
            nn.GELU(),
            nn.Conv2d(half, width, 3, stride=2, padding=1),
        )

    def forward(self, pixels: Float[Tensor, "batch 3 side side"]) -> Float[Tensor, "batch width rows columns"]:
        tokens: Tensor = self.layers(pixels)
        return tokens
