"""The profiles: the arrays of a row, how they are encoded from the teacher's output, and how they are decoded.

A profile determines the stored bytes and their precision, never the meaning of the decoded values. The change that it
causes in the patch cosines S is measured for every image during encoding. K images, M native patches, N patches of the
store's grid, b channels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import prod
from types import MappingProxyType
from typing import Any, Final, NamedTuple, get_args

import numpy as np
import torch
from jaxtyping import Float, Float32
from numpy.typing import NDArray
from torch import Tensor

from ....choices import Profile
from ...geometry.cosines import cosine_matrix, largest_cosine_change
from ...geometry.patch_grid import PatchGrid
from ...geometry.pixels import interpolate_patches
from .codecs import (
    FACTORS,
    interpolate_cosines,
    predict_cosines,
    quantize_cosines,
    quantize_int8,
    restore_cosines,
    rotate_channels,
    unrotate_channels,
)

PROFILES: Final[tuple[Profile, ...]] = get_args(Profile)

GRAM_PROFILES: Final[Mapping[Profile, float]] = MappingProxyType({"gram16": 1.25e-5, "gram12": 1 / 2047})
"""Profiles that store cosines instead of E_v, and their rounding step, which is larger if 16 bits are not sufficient.
"""

WIDER: Final[Mapping[Profile, Profile]] = MappingProxyType(
    {"gram12": "gram16", "gram16": "native", "int8": "native", "native": "float32", "float16": "float32"}
)
"""The profile in which a shard is recomputed if it exceeds the store's tolerance. float32 is exact."""

LARGEST_EXPONENT: Final = 50
"""Values of a row are below 2^50. The sum of squares of larger values overflows in float32, so they have no cosines."""

_IMAGES_AT_ONCE = 2
"""Images encoded together on a CPU, so that a few [images, N, N] matrices fit in its cache; other devices encode a
whole batch."""


@dataclass(frozen=True, kw_only=True)
class ArraySpec:
    """One array of a store; shape and axes are those of one row."""

    name: str
    shape: tuple[int, ...]
    """Shape of one row."""
    dtype: str
    """NumPy's name, little-endian."""
    axes: tuple[str, ...]
    """Names of the dimensions of one row."""
    compressed: bool = False
    """Whether chunks are compressed with Zarr's `blosc` codec (zstd, bit shuffle)."""

    @cached_property
    def nbytes(self) -> int:
        """Size of one row's raw values in bytes."""
        return prod(self.shape) * int(self.dtype[2:])


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedRows:
    """Rows in their stored form."""

    arrays: dict[str, NDArray[Any]]
    """[K, *shape] of every array of `row_arrays`, in that order."""
    max_abs_dS: NDArray[np.float64]
    """[K] largest |S(decoded) - S(float32 teacher)| over all patch pairs, on the store's grid.

    inf if a value does not fit the profile; nan if the teacher's output is not finite.
    """


class DeviceRows(NamedTuple):
    """Encoded rows on the teacher's device."""

    arrays: dict[str, Tensor]
    """See `EncodedRows.arrays`."""
    changes: Float[Tensor, " image"]
    """See `EncodedRows.max_abs_dS`."""

    def on_host(self) -> EncodedRows:
        """Copy the rows to the host, unless they are there; waits for the device."""
        arrays = {name: values.cpu().numpy() for name, values in self.arrays.items()}
        return EncodedRows(arrays=arrays, max_abs_dS=self.changes.double().cpu().numpy())


class DecodedRows(NamedTuple):
    """Decoded rows: float32, on the store's grid, row-major from the top left."""

    E_v: Float32[Tensor, "image patch channel"] | None
    """None for Gram profiles, which do not store it."""
    S: Float32[Tensor, "image patch patch"] | None
    """Patch cosines (Eq. 3) of Gram profiles; None if there is E_v, see `similarity`."""
    E_a: Float32[Tensor, "image patch"]


def has_patches(profile: Profile) -> bool:
    """Whether rows of this profile have E_v; otherwise they have only S, which is sufficient for L_vis."""
    return profile not in GRAM_PROFILES


@lru_cache(maxsize=64)
def row_arrays(profile: Profile, native_grid: PatchGrid, grid: PatchGrid, width: int) -> tuple[ArraySpec, ...]:
    """The arrays of a row of a teacher with `width` channels; E_a comes last."""
    native, patch = native_grid.patches, ("patch",)
    if profile == "float16":
        return (
            ArraySpec(name="E_v", shape=(grid.patches, width), dtype="<f2", axes=("patch", "channel")),
            ArraySpec(name="E_a", shape=(grid.patches,), dtype="<f4", axes=patch),
        )
    attention = ArraySpec(name="E_a", shape=(native,), dtype="<f4", axes=patch)
    if profile in GRAM_PROFILES:
        pairs = (native * (native - 1) // 2,)
        cosines = ArraySpec(name="cosines", shape=pairs, dtype="<u2", axes=("pair",), compressed=True)
        scale = ArraySpec(name="cosine_scale", shape=(2,), dtype="<f4", axes=("coefficient",))
        factors = (native, min(FACTORS, native))
        prediction = ArraySpec(name="cosine_factors", shape=factors, dtype="<f2", axes=("patch", "factor"))
        if native_grid == grid:  # without interpolation, cosines do not depend on norms
            return (cosines, scale, prediction, attention)
        norms = ArraySpec(name="norms", shape=(native,), dtype="<f4", axes=patch)
        return (cosines, scale, prediction, norms, attention)
    dtype = {"native": "<f2", "int8": "|i1", "float32": "<f4"}[profile]
    patches = ArraySpec(name="E_v", shape=(native, width), dtype=dtype, axes=("patch", "channel"))
    if profile == "int8":
        return (patches, ArraySpec(name="scales", shape=(native,), dtype="<f4", axes=patch), attention)
    return (patches, attention)


def encode(
    profile: Profile,
    patches: Float32[Tensor, "image native channel"],
    attention: Float32[Tensor, "image native"],
    native_grid: PatchGrid,
    grid: PatchGrid,
) -> EncodedRows:
    """Encode the teacher's output, on any device, and measure the resulting change of S.

    `patches` and `attention` are on `native_grid` and contain at least one image; `grid` is the store's.
    """
    return encode_on_device(profile, patches, attention, native_grid, grid).on_host()


def encode_on_device(
    profile: Profile,
    patches: Float32[Tensor, "image native channel"],
    attention: Float32[Tensor, "image native"],
    native_grid: PatchGrid,
    grid: PatchGrid,
) -> DeviceRows:
    """Like `encode`, but the result stays on the device of `patches`."""
    parts, changes = [], []
    at_once = _IMAGES_AT_ONCE if patches.device.type == "cpu" else len(patches)
    for group in (slice(start, start + at_once) for start in range(0, len(patches), at_once)):
        exact = interpolate_patches(patches[group], native_grid, grid)
        packed = _pack(profile, patches[group], exact, attention[group], native_grid, grid)
        parts.append(packed)
        changes.append(_changes(profile, patches[group], exact, attention[group], packed, native_grid, grid))
    arrays = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    return DeviceRows(arrays, torch.cat(changes))


def decode(
    profile: Profile, arrays: Mapping[str, NDArray[Any]], native_grid: PatchGrid, grid: PatchGrid
) -> DecodedRows:
    """Decode stored rows (batch first) for training."""
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    return _unpack(profile, tensors, native_grid, grid)


def similarity(rows: DecodedRows) -> Float32[Tensor, "image patch patch"]:
    """Patch cosines S (Eq. 3) for any profile."""
    if rows.S is not None:
        return rows.S
    assert rows.E_v is not None
    return cosine_matrix(rows.E_v)


def _pack(
    profile: Profile, patches: Tensor, exact: Tensor, attention: Tensor, native_grid: PatchGrid, grid: PatchGrid
) -> dict[str, Tensor]:
    """Encode one group on its device; returns arrays in the order of `row_arrays`. `exact` is `patches` on `grid`."""
    if profile == "float16":
        return {"E_v": exact.half(), "E_a": _interpolate_attention(attention, native_grid, grid)}
    if profile in GRAM_PROFILES:
        cosines = cosine_matrix(patches).nan_to_num()  # `_changes` detects values that are not finite
        factors = predict_cosines(cosines)
        levels, scale = quantize_cosines(cosines, factors, GRAM_PROFILES[profile])
        arrays = {"cosines": levels, "cosine_scale": scale, "cosine_factors": factors}
        if native_grid != grid:
            arrays["norms"] = torch.linalg.vector_norm(patches, dim=-1)
        return {**arrays, "E_a": attention.float()}
    if profile == "int8":
        quantized, scales = quantize_int8(rotate_channels(patches))
        return {"E_v": quantized, "scales": scales, "E_a": attention.float()}
    return {"E_v": patches.half() if profile == "native" else patches.float(), "E_a": attention.float()}


def _unpack(profile: Profile, arrays: Mapping[str, Tensor], native_grid: PatchGrid, grid: PatchGrid) -> DecodedRows:
    if profile == "float16":
        return DecodedRows(E_v=arrays["E_v"].float(), S=None, E_a=arrays["E_a"])
    attention = _interpolate_attention(arrays["E_a"], native_grid, grid)
    if profile in GRAM_PROFILES:
        cosines = restore_cosines(arrays["cosines"], arrays["cosine_scale"], arrays["cosine_factors"])
        if native_grid != grid:
            cosines = interpolate_cosines(cosines, arrays["norms"], native_grid, grid)
        return DecodedRows(E_v=None, S=cosines, E_a=attention)
    native = arrays["E_v"].to(torch.float32, copy=True)  # stored rows may be a view of the file
    if profile == "int8":
        native = unrotate_channels(native * arrays["scales"][..., None])
    return DecodedRows(E_v=interpolate_patches(native, native_grid, grid), S=None, E_a=attention)


def _changes(
    profile: Profile,
    patches: Tensor,
    exact: Tensor,
    attention: Tensor,
    packed: Mapping[str, Tensor],
    native_grid: PatchGrid,
    grid: PatchGrid,
) -> Float[Tensor, " image"]:
    """Compute `EncodedRows.max_abs_dS` of one group."""
    decoded = _unpack(profile, packed, native_grid, grid)
    if decoded.E_v is not None:
        change = largest_cosine_change(decoded.E_v, exact)  # not finite if E_v is not
    else:
        change = (similarity(decoded) - cosine_matrix(exact)).abs().amax(dim=(1, 2))
    others = [values for name, values in packed.items() if name != "E_v" and values.is_floating_point()]
    fits = _all_finite(*others) & change.isfinite()
    return change.where(fits, torch.inf).where(_all_finite(patches, attention), torch.nan)


def _all_finite(*values: Tensor) -> Tensor:
    """[K] whether all values of an image are finite and have cosines; comparisons with NaN are false."""
    in_range = [value.flatten(1).abs().amax(dim=1) < 2.0**LARGEST_EXPONENT for value in values]
    return torch.stack(in_range).all(dim=0)


def _interpolate_attention(attention: Tensor, native_grid: PatchGrid, grid: PatchGrid) -> Tensor:
    return interpolate_patches(attention[..., None], native_grid, grid)[..., 0]
