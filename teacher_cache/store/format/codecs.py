"""The arithmetic of the profiles: cosines in 16 bits, their interpolation, and the rotation before int8 quantization.

Pure functions of tensors on any device. K images, M native patches, N patches of the store's grid.
"""

import math
from functools import lru_cache

import torch
from jaxtyping import Float16, Float32, Int8, UInt16
from torch import Tensor
from torch.nn import functional

from ...geometry.patch_grid import PatchGrid
from ...geometry.pixels import interpolate_patches

FACTORS = 4
"""Columns of the low-rank prediction of an image's cosines."""

_ITERATIONS = 4
"""Steps of the subspace iteration; more steps make no measurable difference."""

_LEVELS = 2**16 - 1
"""Highest level of a quantized cosine."""


def rotate_channels(patches: Float32[Tensor, "image patch channel"]) -> Float32[Tensor, "image patch channel"]:
    """Orthonormal DCT-II over the b channels of every patch.

    y_k = sqrt((1 if k == 0 else 2) / b) sum_n x_n cos(pi (n + 1/2) k / b), computed with one FFT of length b. It
    spreads an outlier channel over all channels, so that one scale per patch is sufficient.
    """
    width = patches.shape[-1]
    folded = torch.cat([patches[..., 0::2], patches[..., 1::2].flip(-1)], dim=-1)
    spectrum: Tensor = torch.fft.fft(folded)
    return (spectrum * _twiddle(width, patches.device)).real * _scale(width, patches.device)


def unrotate_channels(rotated: Float32[Tensor, "image patch channel"]) -> Float32[Tensor, "image patch channel"]:
    """The inverse of `rotate_channels`, its transpose."""
    width = rotated.shape[-1]
    scaled = rotated / _scale(width, rotated.device)
    mirrored = functional.pad(scaled[..., 1:].flip(-1), (1, 0))
    spectrum = torch.complex(scaled, -mirrored) * _twiddle(width, rotated.device).conj()
    folded = torch.fft.irfft(spectrum[..., : width // 2 + 1], n=width)
    patches = torch.empty_like(rotated)
    patches[..., 0::2] = folded[..., : (width + 1) // 2]
    patches[..., 1::2] = folded[..., (width + 1) // 2 :].flip(-1)
    return patches


def quantize_int8(
    patches: Float32[Tensor, "image patch channel"],
) -> tuple[Int8[Tensor, "image patch channel"], Float32[Tensor, "image patch"]]:
    """Round every patch to 255 steps of its own scale, max |x| / 127; a zero patch has scale 0."""
    scale = patches.abs().amax(dim=-1) / 127
    steps = (patches / torch.where(scale > 0, scale, 1.0)[..., None]).round()
    return steps.clamp(-127, 127).to(torch.int8), scale


def predict_cosines(cosines: Float32[Tensor, "image patch patch"]) -> Float16[Tensor, "image patch factor"]:
    """Find F such that F F^T approximates the cosines: leading eigenvectors, by subspace iteration from a fixed start.

    The remainder has a smaller range than the cosines, so the same number of bits gives finer steps. F need not be
    optimal, because the remainder is quantized.
    """
    patches = cosines.shape[1]
    start = torch.arange(min(FACTORS, patches), device=cosines.device) * (math.pi / patches)
    basis = torch.cos(torch.arange(patches, device=cosines.device)[:, None] * start).expand(len(cosines), -1, -1)
    for _ in range(_ITERATIONS):
        basis, _ = torch.linalg.qr(cosines @ basis)
    weights, rotation = torch.linalg.eigh(basis.transpose(1, 2) @ cosines @ basis)
    factors: Tensor = basis @ rotation * weights.clamp_min(0).sqrt()[:, None]
    return factors.half()


def quantize_cosines(
    cosines: Float32[Tensor, "image patch patch"], factors: Float16[Tensor, "image patch factor"], step: float
) -> tuple[UInt16[Tensor, "image pair"], Float32[Tensor, "image 2"]]:
    """Quantize the remainder of every pair i < j of patches, row-major; returns levels and (lowest, step) per image.

    cosine = (F F^T)_ij + lowest + level * step. The step is `step`, or larger if 65,536 levels are not sufficient.
    """
    patches = cosines.shape[1]
    first, second = torch.triu_indices(patches, patches, offset=1, device=cosines.device)
    remainder = (cosines - _gram(factors))[:, first, second]
    lowest, highest = remainder.amin(dim=1, keepdim=True), remainder.amax(dim=1, keepdim=True)
    steps = ((highest - lowest) / _LEVELS).clamp_min(step)
    levels = ((remainder - lowest) / steps).round().clamp(0, _LEVELS)
    return levels.to(torch.uint16), torch.cat([lowest, steps], dim=1)


def restore_cosines(
    levels: UInt16[Tensor, "image pair"],
    scale: Float32[Tensor, "image 2"],
    factors: Float16[Tensor, "image patch factor"],
) -> Float32[Tensor, "image patch patch"]:
    """Invert `quantize_cosines`: the symmetric matrix with diagonal 1."""
    patches = factors.shape[1]
    remainder = functional.pad(scale[:, :1] + levels.float() * scale[:, 1:], (0, 1))
    square = remainder.index_select(1, _pair_of_entry(patches, levels.device)).reshape(-1, patches, patches)
    cosines = (square + _gram(factors)).clamp(-1, 1)
    cosines.diagonal(dim1=1, dim2=2).fill_(1)
    return cosines


def interpolate_cosines(
    cosines: Float32[Tensor, "image native native"],
    norms: Float32[Tensor, "image native"],
    native_grid: PatchGrid,
    grid: PatchGrid,
) -> Float32[Tensor, "image patch patch"]:
    """Cosines of the interpolated patches: U D C D U^T, normalized to diagonal 1; D: norms, U: bilinear interpolation.

    Cosines do not depend on an image's scale, so norms are divided by the largest one before they are multiplied.
    """
    relative = norms / norms.amax(dim=1, keepdim=True).clamp_min(torch.finfo(norms.dtype).tiny)
    gram = cosines * relative[:, :, None] * relative[:, None, :]
    half = interpolate_patches(gram, native_grid, grid).transpose(1, 2)
    products = interpolate_patches(half, native_grid, grid)
    squares = products.diagonal(dim1=1, dim2=2)
    inverse = torch.where(squares > 0, squares.clamp_min(0).rsqrt(), 0.0)
    scaled = products * inverse[:, :, None] * inverse[:, None, :]
    return ((scaled + scaled.transpose(1, 2)) / 2).clamp(-1, 1)


def _gram(factors: Float16[Tensor, "image patch factor"]) -> Float32[Tensor, "image patch patch"]:
    return factors.float() @ factors.float().transpose(1, 2)


@lru_cache(maxsize=8)
def _pair_of_entry(patches: int, device: torch.device) -> Tensor:
    """Pair number for entry (i, j) of the flattened matrix; diagonal entries have the number after the last pair."""
    first, second = torch.triu_indices(patches, patches, offset=1)
    pairs = torch.full((patches, patches), len(first), dtype=torch.int32)
    pairs[first, second] = pairs[second, first] = torch.arange(len(first), dtype=torch.int32)
    return pairs.flatten().to(device)


@lru_cache(maxsize=8)
def _twiddle(width: int, device: torch.device) -> Tensor:
    """exp(-i pi k / 2b), k = 0 .. b - 1, computed in double precision."""
    angles = torch.arange(width, dtype=torch.float64) * (-math.pi / (2 * width))
    return torch.polar(torch.ones_like(angles), angles).to(device, torch.complex64)


@lru_cache(maxsize=8)
def _scale(width: int, device: torch.device) -> Tensor:
    """Factors that make the DCT-II orthonormal: sqrt(2 / b), and sqrt(1 / b) for k = 0."""
    scale = torch.full((width,), math.sqrt(2 / width))
    scale[0] = math.sqrt(1 / width)
    return scale.to(device)
