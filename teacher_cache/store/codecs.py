"""The arithmetic of the profiles: cosine matrices, native Gram matrices, and the rotation in front of int8.

Pure functions of tensors on any device. K images, M native patches, N patches of the store's grid.
"""

import math
from functools import lru_cache

import torch
from jaxtyping import Float, Float32, Int8, UInt16
from torch import Tensor
from torch.nn import functional

from ..geometry import PatchGrid, interpolate_patches

_LEVELS = 2**16 - 1
"""Highest level of a quantised cosine."""


def cosine_matrix(patches: Float[Tensor, "image patch channel"]) -> Float32[Tensor, "image patch patch"]:
    """S, the cosines between all patches of each image (Eq. 3), in float32; a zero vector has cosine 0 with all."""
    with torch.autocast(patches.device.type, enabled=False):  # a training step's bfloat16 would blur the cosines
        unit = functional.normalize(patches.float(), dim=-1)
        return unit @ unit.transpose(1, 2)


def rotate_channels(patches: Float32[Tensor, "image patch channel"]) -> Float32[Tensor, "image patch channel"]:
    """Orthonormal DCT-II over the b channels of every patch.

    y_k = sqrt((1 if k == 0 else 2) / b) sum_n x_n cos(pi (n + 1/2) k / b), by one FFT of length b. It spreads a
    channel that is far larger than the others over all of them, so one scale per patch fits.
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


def quantise_int8(
    patches: Float32[Tensor, "image patch channel"],
) -> tuple[Int8[Tensor, "image patch channel"], Float32[Tensor, "image patch"]]:
    """Round every patch to 255 steps of its own scale, max |x| / 127; a zero patch has scale 0."""
    scale = patches.abs().amax(dim=-1) / 127
    steps = (patches / torch.where(scale > 0, scale, 1.0)[..., None]).round()
    return steps.clamp(-127, 127).to(torch.int8), scale


def quantise_cosines(
    cosines: Float32[Tensor, "image patch patch"], step: float | None
) -> tuple[UInt16[Tensor, "image pair"], Float32[Tensor, "image 2"]]:
    """Level of every pair i < j of patches, row-major, and each image's (lowest cosine, step between levels).

    cosine = lowest + level * step. Without a `step` all 65,536 levels span the image's own range of cosines.
    """
    patches = cosines.shape[1]
    first, second = torch.triu_indices(patches, patches, offset=1, device=cosines.device)
    pairs = cosines[:, first, second]
    lowest, highest = pairs.amin(dim=1, keepdim=True), pairs.amax(dim=1, keepdim=True)
    steps = (highest - lowest) / _LEVELS if step is None else torch.full_like(lowest, step)
    levels = ((pairs - lowest) / torch.where(steps > 0, steps, 1.0)).round().clamp(0, _LEVELS)
    return levels.to(torch.uint16), torch.cat([lowest, steps], dim=1)


def restore_cosines(
    levels: UInt16[Tensor, "image pair"], scale: Float32[Tensor, "image 2"], patches: int
) -> Float32[Tensor, "image patch patch"]:
    """The symmetric matrix of which `quantise_cosines` kept a triangle; its diagonal is 1."""
    pairs = (scale[:, :1] + levels.float() * scale[:, 1:]).clamp(-1, 1)
    entries = functional.pad(pairs, (0, 1), value=1.0).index_select(1, _pair_of_entry(patches, levels.device))
    return entries.reshape(-1, patches, patches)


def interpolate_cosines(
    cosines: Float32[Tensor, "image native native"],
    norms: Float32[Tensor, "image native"],
    native_grid: PatchGrid,
    grid: PatchGrid,
) -> Float32[Tensor, "image patch patch"]:
    """The cosines after interpolation: U D C D U^T over the roots of its diagonal, D the norms, U the bilinear map.

    Cosines do not change with an image's scale, so its largest norm is taken out before norms are multiplied.
    """
    relative = norms / norms.amax(dim=1, keepdim=True).clamp_min(torch.finfo(norms.dtype).tiny)
    gram = cosines * relative[:, :, None] * relative[:, None, :]
    half = interpolate_patches(gram, native_grid, grid).transpose(1, 2)
    products = interpolate_patches(half, native_grid, grid)
    squares = products.diagonal(dim1=1, dim2=2)
    inverse = torch.where(squares > 0, squares.clamp_min(0).rsqrt(), 0.0)
    scaled = products * inverse[:, :, None] * inverse[:, None, :]
    return ((scaled + scaled.transpose(1, 2)) / 2).clamp(-1, 1)


@lru_cache(maxsize=8)
def _pair_of_entry(patches: int, device: torch.device) -> Tensor:
    """For entry (i, j) of a flattened square, the number of its pair; the diagonal gets the number after the last."""
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
    """What makes the DCT-II orthonormal: sqrt(2 / b), and sqrt(1 / b) for k = 0."""
    scale = torch.full((width,), math.sqrt(2 / width))
    scale[0] = math.sqrt(1 / width)
    return scale.to(device)
