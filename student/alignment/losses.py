"""The alignment losses L_vis and L_att (Eqs. 3 to 5), one value per image, as pure functions.

K images, N patches, D student width, C teacher width.
"""

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor
from torch.nn import functional

from ...choices import AttentionNormalization
from ...teacher_cache.geometry.cosines import cosine_matrix


def teacher_cosines(
    E_v: Float[Tensor, "images patches channels"] | None, S: Float[Tensor, "images patches patches"] | None
) -> Float[Tensor, "images patches patches"] | None:
    """S^e (Eq. 3), either from a Gram store or computed from E_v; None without either."""
    if S is not None or E_v is None:
        return S
    return cosine_matrix(E_v)


def visual_alignment_loss(
    student_KNN: Float[Tensor, "images patches patches"],
    teacher_KNN: Float[Tensor, "images patches patches"],
    weights_KN: Float[Tensor, "images patches"] | None = None,
) -> Float[Tensor, " images"]:
    """L_vis: mean squared difference between the patch cosines S^x and S^e (Eq. 4), in [0, 4].

    Both have the same patch grid, row-major from the top left. With weights, which sum to 1 for each image, the pair
    (i, j) has weight a_i a_j instead of 1 / N^2, as in an unused variant of the released code.
    """
    squares_KNN = (student_KNN - teacher_KNN).square()
    if weights_KN is None:
        return squares_KNN.mean(dim=(1, 2))
    return ((squares_KNN @ weights_KN[..., None])[..., 0] * weights_KN).sum(dim=1)


def attention_alignment_loss(
    student_KN: Float[Tensor, "images patches"],
    teacher_KN: Float[Tensor, "images patches"],
    normalization: AttentionNormalization,
) -> Float[Tensor, " images"]:
    """L_att: divergence of the student's M_a from the teacher's E_a (Eq. 5), both non-negative.

    `sum`: KL(E_a || M_a) in nats of the maps divided by their sums: a true KL, 0 if they are proportional.
    `softmax`: the same KL of softmax(E_a) and softmax(M_a), as printed in the paper. The maps' values are in [0, 1],
    so both are nearly uniform and little signal is left.
    `l2`: as in the released code, sum(t (log t - log p)) / N of the L2-normalized maps. This is not a KL: its minimum
    is negative, at p proportional to sqrt(t).

    Computed in float64, because the terms of two nearly uniform maps cancel: with the paper's softmax, L_att is 1e-6
    to 1e-5 nats, and float32 has an error of 2 to 23 %.
    """
    device = student_KN.device
    student_KN, teacher_KN = _as_double(student_KN), _as_double(teacher_KN)
    return _compare_maps(student_KN, teacher_KN, normalization).float().to(device)


def has_region(regions_KN: Float[Tensor, "images patches"]) -> Bool[Tensor, " images"]:
    """Whether an image has a region on the grid."""
    return regions_KN.sum(dim=-1) > 0


def region_alignment_loss(
    student_KN: Float[Tensor, "images patches"],
    regions_KN: Float[Tensor, "images patches"],
    teacher_KN: Float[Tensor, "images patches"] | None,
    normalization: AttentionNormalization,
) -> Float[Tensor, " images"]:
    """L_att with annotated regions R as the target, or with the mean of R and E_a, each normalized first.

    Args:
        student_KN: M_a.
        regions_KN: R, the share of each patch inside the regions; zero for an image without regions.
        teacher_KN: E_a, which is the whole target of images without regions; None: their loss is 0.
        normalization: that of all maps, as in `attention_alignment_loss`.
    """
    has_K1 = has_region(regions_KN)[:, None]
    regions = torch.where(has_K1, regions_KN, torch.ones_like(regions_KN))  # so that nothing is divided by 0
    target = _normalize(_as_double(regions), normalization)
    has_K1 = has_K1.to(target.device)
    if teacher_KN is not None:
        E_a = _normalize(_as_double(teacher_KN), normalization)
        target = torch.where(has_K1, (target + E_a) / 2, E_a)
    loss = _compare_to_target(_as_double(student_KN), target, normalization)
    if teacher_KN is None:
        loss = torch.where(has_K1[:, 0], loss, torch.zeros_like(loss))
    return loss.float().to(student_KN.device)


def _normalize(
    maps_KN: Float64[Tensor, "images patches"], normalization: AttentionNormalization
) -> Float64[Tensor, "images patches"]:
    if normalization == "softmax":
        return maps_KN.softmax(dim=-1)
    if normalization == "sum":
        return maps_KN / maps_KN.sum(dim=-1, keepdim=True)
    return functional.normalize(maps_KN, dim=-1)


def _compare_to_target(
    student_KN: Float64[Tensor, "images patches"],
    t: Float64[Tensor, "images patches"],
    normalization: AttentionNormalization,
) -> Float64[Tensor, " images"]:
    """The divergence of M_a, which is not normalized yet, from a target that is."""
    if normalization == "softmax":
        return (torch.xlogy(t, t) - t * student_KN.log_softmax(dim=-1)).sum(dim=-1)
    terms = _relative_entropy_terms(t, _normalize(student_KN, normalization))
    return terms.sum(dim=-1) if normalization == "sum" else terms.mean(dim=-1)


def _as_double(maps_KN: Float[Tensor, "images patches"]) -> Float64[Tensor, "images patches"]:
    """Convert to float64, on the CPU if the device has no float64 (Apple's GPUs)."""
    return (maps_KN.cpu() if maps_KN.device.type == "mps" else maps_KN).double()


def _compare_maps(
    student_KN: Float64[Tensor, "images patches"],
    teacher_KN: Float64[Tensor, "images patches"],
    normalization: AttentionNormalization,
) -> Float64[Tensor, " images"]:
    if normalization == "softmax":
        log_p, log_t = student_KN.log_softmax(dim=-1), teacher_KN.log_softmax(dim=-1)
        return (log_t.exp() * (log_t - log_p)).sum(dim=-1)
    return _compare_to_target(student_KN, _normalize(teacher_KN, normalization), normalization)


def _relative_entropy_terms(
    t: Float64[Tensor, "images patches"], p: Float64[Tensor, "images patches"]
) -> Float64[Tensor, "images patches"]:
    """t (log t - log p), 0 where t is 0; p is at least float32's smallest normal number."""
    smallest = torch.finfo(torch.float32).tiny
    return torch.xlogy(t, t) - t * p.clamp_min(smallest).log()
