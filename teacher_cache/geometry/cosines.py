"""Cosines between the patches of an image (Eq. 3), for stores and losses.

Pure functions of tensors on any device.
"""

import torch
from jaxtyping import Float, Float32
from torch import Tensor
from torch.nn import functional


def cosine_matrix(patches: Float[Tensor, "image patch channel"]) -> Float32[Tensor, "image patch patch"]:
    """S, the cosines between all patches of each image (Eq. 3), in float32; a zero vector has cosine 0 with all."""
    with torch.autocast(patches.device.type, enabled=False):  # bfloat16 of a training step would round the cosines
        unit = functional.normalize(patches.float(), dim=-1)
        return unit @ unit.transpose(1, 2)


def largest_cosine_change(
    patches: Float[Tensor, "image patch channel"], exact: Float[Tensor, "image patch channel"]
) -> Float32[Tensor, " image"]:
    """max |S(patches) - S(exact)| over all pairs of patches of each image; nan if a value is not finite.

    With unit rows u and v, S(u) - S(v) = P + P^T for P = (u + v) / 2 (u - v)^T. This needs one product instead of two,
    and avoids the cancellation of subtracting nearly equal cosines.
    """
    u, v = functional.normalize(patches.float(), dim=-1), functional.normalize(exact.float(), dim=-1)
    difference = u - v
    products = u.add_(v).mul_(0.5) @ difference.transpose(1, 2)
    return (products + products.transpose(1, 2)).abs().amax(dim=(1, 2))
