"""Converting the values that a scanner stored to 256 gray levels (DICOM PS3.3 C.11)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from .contrast import require_contrast

_ONE_GRAY = (
    "its window or look-up table excludes all of them, or all are padding; if the image shows anything, export it as "
    "PNG with a window that shows it"
)

VoiFunction = Literal["LINEAR", "LINEAR_EXACT", "SIGMOID"]
FUNCTIONS: tuple[VoiFunction, ...] = get_args(VoiFunction)

_BLOCK = 1 << 20
"""Pixels looked up at a time, because NumPy widens each index to 8 bytes."""

Curve = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Maps modality values (such as Hounsfield units) to brightness in [0, 1]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """The range of modality values that is mapped to gray levels (PS3.3 C.11.2.1.2 and C.11.2.1.3)."""

    center: float
    width: float
    """At least 1 for `LINEAR`, above 0 for the others."""
    function: VoiFunction = "LINEAR"

    @property
    def valid(self) -> bool:
        """Whether the standard allows the window; there are files with width 0."""
        finite = bool(np.isfinite(self.center) and np.isfinite(self.width))
        return finite and (self.width >= 1 if self.function == "LINEAR" else self.width > 0)

    def __call__(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Brightness in [0, 1] of modality values."""
        if self.function == "SIGMOID":
            return 1 / (1 + np.exp(np.clip(-4 * (values - self.center) / self.width, -700, 700)))
        half = 0.5 if self.function == "LINEAR" else 0.0
        center, width = self.center - half, self.width - 2 * half
        if width == 0:  # LINEAR with width 1: a threshold
            return (values > center).astype(np.float64)
        return np.clip((values - center) / width + 0.5, 0, 1)


def render(
    stored: NDArray[Any], modality: Curve, curve: Curve | None, *, inverted: bool, padding: tuple[int, int] | None
) -> NDArray[np.uint8]:
    """Render stored values [height, width] as gray levels.

    `modality` maps stored values to units, and `curve` maps units to [0, 1]; without a curve, the range of units in
    the image is mapped to [0, 1]. `inverted`: MONOCHROME1, where the smallest value is white. Stored values within
    `padding` (inclusive) are not tissue: they become black and are excluded from the range.

    Raises:
        UnreadableImage: the stored values vary, but all of them become one gray level.
    """
    values, parts = _distinct(stored)
    units = modality(values).astype(np.float64)
    tissue = np.ones(len(values), bool)
    if padding is not None:
        tissue = (values < min(padding)) | (values > max(padding))
    if curve is None:
        present = np.zeros(len(values), bool)
        for part in parts():
            present[part] = True
        curve = spread(units[present & tissue])
    brightness = curve(units)
    levels = np.round(255 * (1 - brightness if inverted else brightness)).astype(np.uint8)
    levels[~tissue] = 0
    shown = np.concatenate([levels[part] for part in parts()]).reshape(stored.shape)
    require_contrast(stored, shown, "DICOM", _ONE_GRAY)
    return shown


def spread(units: NDArray[np.float64]) -> Curve:
    """The linear map from the smallest (0) to the largest (1) finite unit; all 0 if they are equal."""
    finite = units[np.isfinite(units)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 0.0)
    scale = 1 / (high - low) if high > low else 0.0
    return lambda values: np.clip((np.nan_to_num(values, nan=low, posinf=high, neginf=low) - low) * scale, 0, 1)


def stretched(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Gray levels for values of unknown range: linear from the smallest to the largest finite value."""
    exact = values.astype(np.float64)
    return np.round(255 * spread(exact.ravel())(exact)).astype(np.uint8)


def _distinct(stored: NDArray[Any]) -> tuple[NDArray[Any], Callable[[], Iterator[NDArray[Any]]]]:
    """Possible values, and blocks of indices into them in pixel order."""
    flat = np.ascontiguousarray(stored).reshape(-1)
    bits = 8 * flat.dtype.itemsize
    if bits > 16:
        values, indices = np.unique(flat, return_inverse=True)
    else:
        unsigned = np.dtype(f"u{flat.dtype.itemsize}")
        values, indices = np.arange(2**bits, dtype=unsigned).view(flat.dtype), flat.view(unsigned)
    return values, lambda: (indices[start : start + _BLOCK] for start in range(0, len(indices), _BLOCK))
