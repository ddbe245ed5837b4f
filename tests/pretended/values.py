"""Values of fake tensors: real arithmetic beside the pretended one, for what is small and known."""

import sys
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

SMALL = 4_000_000
"""Values of larger tensors are not followed."""
SMALL_FLOAT = 300_000
"""Nor those of larger floating-point tensors, which decide nothing."""

_forgotten: dict[int, Any] = {}
"""Storages whose values were overwritten with unknown ones; kept, so that their addresses stay theirs."""


class RealArithmetic:
    """No modes at all while the block runs."""

    def __enter__(self) -> None:
        self._modes = _disable_current_modes()
        self._modes.__enter__()
        self._function = torch._C.DisableTorchFunction()
        self._function.__enter__()

    def __exit__(self, *args: Any) -> None:
        self._function.__exit__(*args)
        self._modes.__exit__(*args)


class OnceMore:
    """A mode again, around the operators that a composite one consists of."""

    def __init__(self, mode: TorchDispatchMode) -> None:
        self._mode = mode

    def __enter__(self) -> None:
        TorchDispatchMode.__enter__(self._mode)

    def __exit__(self, *args: Any) -> None:
        TorchDispatchMode.__exit__(self._mode, *args)


def on_gpu(value: Any) -> bool:
    return isinstance(value, Tensor) and value.device.type == "cuda"


def known(value: Any) -> Tensor | None:
    """The values of a tensor, on the CPU; None where they are not known."""
    if not isinstance(value, FakeTensor):
        return value if isinstance(value, Tensor) else None
    values = getattr(value, "_known", None)
    return None if values is None or values.untyped_storage()._cdata in _forgotten else values


def forget(value: Any) -> None:
    """A tensor was overwritten with what is not known."""
    values = getattr(value, "_known", None) if isinstance(value, FakeTensor) else None
    if values is not None:
        _forgotten[values.untyped_storage()._cdata] = values.untyped_storage()


def with_values(values: Tensor, device: torch.device) -> Tensor:
    """A fake tensor on a device that has these values."""
    made = torch.empty(tuple(values.shape), dtype=values.dtype, device=device)
    made._known = values
    return made


def invented(tensor: Tensor) -> Tensor:
    """Values for a tensor that is read without being known."""
    shape = tuple(tensor.shape)
    with RealArithmetic():
        if tensor.dtype == torch.bool:
            return torch.full(shape, True)
        if tensor.dtype.is_floating_point:
            return torch.rand(shape, dtype=torch.float64).to(tensor.dtype)
        return torch.arange(tensor.numel()).reshape(shape).remainder(97).add(3).to(tensor.dtype)


def line_of_call() -> tuple[str, bool]:
    """The innermost line outside torch, and whether it is one of medalign or of a check, not of another library."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if not any(part in name for part in _NOT_CALLERS):
            return f"{Path(name).parent.name}/{Path(name).name}:{frame.f_lineno}", "site-packages" not in name
        frame = frame.f_back
    return "?", False


_TESTS = str(Path(__file__).parents[1])
_NOT_CALLERS = (
    "/torch/",
    f"{_TESTS}/pretended/gpu.py",
    f"{_TESTS}/pretended/values.py",
    "<",
    "jaxtyping",
    "contextlib",
)
