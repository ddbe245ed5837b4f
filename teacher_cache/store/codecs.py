"""How E_v becomes bytes, and what that costs in the quantity that is trained on."""

import torch
from jaxtyping import Float, Float16, Float32
from torch import Tensor
from torch.nn import functional

_IMAGES_AT_ONCE = 8
"""Bounds the memory of two [images, N, N] matrices."""


def encode_float16(
    patches: Float32[Tensor, "image patch channel"],
) -> tuple[Float16[Tensor, "image patch channel"], Float32[Tensor, "image"]]:
    """Round E_v to float16; returns it with each image's max |S(stored) - S(exact)|."""
    stored = patches.half()
    return stored, max_abs_dS(patches, stored)


def max_abs_dS(
    exact: Float[Tensor, "image patch channel"], stored: Float[Tensor, "image patch channel"]
) -> Float32[Tensor, "image"]:
    """Largest change of any entry of each image's patch-cosine matrix S (Eq. 3)."""
    groups = [slice(start, start + _IMAGES_AT_ONCE) for start in range(0, len(exact), _IMAGES_AT_ONCE)]
    gaps = [(cosine_matrix(exact[group]) - cosine_matrix(stored[group])).abs().amax(dim=(1, 2)) for group in groups]
    return torch.cat(gaps) if gaps else exact.new_empty(0, dtype=torch.float32)


def cosine_matrix(
    patches: Float[Tensor, "image patch channel"],
) -> Float32[Tensor, "image patch patch"]:
    """S, the cosines between all patches of each image (Eq. 3); a zero vector has cosine 0 with all."""
    unit = functional.normalize(patches.float(), dim=-1)
    return unit @ unit.transpose(1, 2)
