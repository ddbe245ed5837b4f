"""Copies between host memory and a teacher's device.

On CUDA, each direction uses pinned memory and a separate stream, so no copy waits for the kernels of another batch, and
the host waits only for the rows that it writes. On other devices they are plain copies.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from ..geometry.pixels import to_pixel_batch
from ..store.format.profiles import DeviceRows, EncodedRows
from ..teachers.forward import Teacher
from .prefetch import PreparedImage


@runtime_checkable
class PendingRows(Protocol):
    """Encoded rows that are being copied to the host."""

    def wait(self) -> EncodedRows:
        """Wait for the copy; returns the rows."""


def stacked(images: Sequence[PreparedImage]) -> UInt8[Tensor, "batch side side 3"]:
    """Stack the squares of at least one image into one tensor."""
    return torch.from_numpy(np.stack([image.square for image in images]))


class PlainCopies:
    """Synchronous copies."""

    def pixels(self, teacher: Teacher, images: Sequence[PreparedImage]) -> Float32[Tensor, "batch 3 side side"]:
        """Copy at least one image to the teacher's device; returns normalized pixels."""
        return to_pixel_batch(stacked(images).to(teacher.device), teacher.spec.mean, teacher.spec.std)

    def rows(self, rows: DeviceRows) -> PendingRows:
        """Start copying encoded rows to the host."""
        return _Arrived(rows)


class _Arrived:
    def __init__(self, rows: DeviceRows) -> None:
        self._rows = rows

    def wait(self) -> EncodedRows:
        return self._rows.on_host()


class PinnedCopies:
    """Asynchronous copies through pinned memory, with a side stream for each direction.

    `cuda` is `torch.cuda`, and `pinned` creates an uninitialized pinned tensor of a shape and dtype; tests pass fakes.
    """

    def __init__(
        self,
        device: torch.device,
        cuda: Any = torch.cuda,
        pinned: Callable[[Sequence[int], torch.dtype], Tensor] | None = None,
    ) -> None:
        self._device, self._cuda = device, cuda
        self._pinned = pinned or _pinned
        self._in, self._out = cuda.Stream(device), cuda.Stream(device)

    def pixels(self, teacher: Teacher, images: Sequence[PreparedImage]) -> Float32[Tensor, "batch 3 side side"]:
        """Copy 8-bit squares, a quarter of the bytes, over the side stream and normalize them on the device."""
        side = teacher.spec.image_size
        staging = self._pinned((len(images), side, side, 3), torch.uint8)
        for slot, image in zip(staging, images, strict=True):
            slot.copy_(torch.from_numpy(image.square))
        computing = self._cuda.current_stream(self._device)
        with self._cuda.stream(self._in):
            squares = staging.to(self._device, non_blocking=True)
        computing.wait_stream(self._in)
        squares.record_stream(computing)
        return to_pixel_batch(squares, teacher.spec.mean, teacher.spec.std)

    def rows(self, rows: DeviceRows) -> PendingRows:
        """Start copying encoded rows to pinned memory, after the kernels launched so far have finished."""
        self._out.wait_stream(self._cuda.current_stream(self._device))
        with self._cuda.stream(self._out):
            copies = {name: self._to_host(value) for name, value in rows.arrays.items()}
            changes = self._to_host(rows.changes)
            arrived = self._cuda.Event()
            arrived.record(self._out)
        return _Copying(copies, changes, arrived)

    def _to_host(self, value: Tensor) -> Tensor:
        value.record_stream(self._out)
        return self._pinned(value.shape, value.dtype).copy_(value, non_blocking=True)


class _Copying:
    def __init__(self, copies: Mapping[str, Tensor], changes: Tensor, arrived: Any) -> None:
        self._rows, self._arrived = DeviceRows(dict(copies), changes), arrived

    def wait(self) -> EncodedRows:
        self._arrived.synchronize()
        return self._rows.on_host()


def copies_of(device: torch.device) -> PlainCopies | PinnedCopies:
    """The kind of copies to use for a device."""
    return PinnedCopies(device) if device.type == "cuda" else PlainCopies()


def _pinned(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    return torch.empty(tuple(shape), dtype=dtype, pin_memory=True)
