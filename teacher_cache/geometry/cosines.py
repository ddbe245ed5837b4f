"""Cosines between the patches of an image (Eq. 3), as stores and losses compare them.

Pure functions of tensors on any device.
"""

import torch
from jaxtyping import Float, Float32
from torch import Tensor
from torch.nn import functional


def cosine_matrix(patches: Float[Tensor, "image patch channel"]) -> Float32[Tensor, "image patch patch"]:
    """S, the cosines between all patches of each image (Eq. 3), in float32; a zero vector has cosine 0 with all."""
    with torch.autocast(patches.device.type, enabled=False):  # a training step's bfloat16 would blur the cosines
        unit = functional.normalize(patches.float(), dim=-1)
        return unit @ unit.transpose(1, 2)


def largest_cosine_change(
    patches: Float[Tensor, "image patch channel"], exact: Float[Tensor, "image patch channel"]
) -> Float32[Tensor, " image"]:
    """max |S(patches) - S(exact)| over all pairs of patches of each image; nan where a value is not finite.

    With unit rows u and v, S(u) - S(v) = P + P^T for P = (u + v) / 2 (u - v)^T: one product instead of two, and
    nothing is lost by taking one cosine from another that is nearly the same.
    """
    u, v = functional.normalize(patches.float(), dim=-1), functional.normalize(exact.float(), dim=-1)
    difference = u - v
    products = u.add_(v).mul_(0.5) @ difference.transpose(1, 2)
    return (products + products.transpose(1, 2)).abs().amax(dim=(1, 2))
