"""Weight files of a checkpoint: found through its index, their shapes read without their values."""

import pickle
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ....errors import InputError
from ...file_errors import check_no_pointer, is_file, read_object, reason
from .original_format import COMPUTED

SINGLE_FILES = ("model.safetensors", "pytorch_model.bin")
FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
"""Precisions that weights may be stored in; others are quantized and mean nothing without their scales."""
BUFFERS = (*COMPUTED, ".attn.bias", ".attention.bias")
"""Endings of tensors of other kinds that are no weights: position numbers, and masks of GPT-2 and GPT-NeoX."""

Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredTensor:
    """Where a tensor lies and what it is, without its values."""

    file: Path
    shape: Shape
    dtype: torch.dtype


def find_weight_files(folder: Path) -> list[Path]:
    """The weight files of a folder: the one file, or those of its index; safetensors before .bin. Empty if none.

    The order is that of transformers' `from_pretrained`, which looks for `model.safetensors`, its index,
    `pytorch_model.bin` and its index, and takes the first that is there. Reading and fingerprints both come here.

    Raises:
        InputError: the index is not one, or names files that are not there or not in the folder.
    """
    for single in SINGLE_FILES:
        if is_file(folder / single):
            return [folder / single]
        index = folder / f"{single}.index.json"
        if is_file(index):
            return _indexed_files(index)
    return []


def _indexed_files(index: Path) -> list[Path]:
    weight_map = read_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise InputError(f"{index} is no index of weight files: its weight_map is no object of file names")
    names = sorted(set(weight_map.values()))
    outside = [name for name in names if Path(name).name != name]
    if outside:
        raise InputError(f"{index} names files outside its folder: {', '.join(outside)}")
    missing = [name for name in names if not is_file(index.parent / name)]
    if missing:
        raise InputError(
            f"{index.parent} is not whole: {len(missing)} of {len(names)} weight files are missing: "
            f"{', '.join(missing)}"
        )
    return [index.parent / name for name in names]


def list_tensors(files: list[Path]) -> dict[str, StoredTensor]:
    """Every tensor of some weight files.

    Raises:
        InputError: a file cannot be read, holds something else than tensors of floating-point numbers (and the
            buffers that old releases saved), or two hold the same name.
    """
    found: dict[str, StoredTensor] = {}
    for path in files:
        for name, shape, dtype in _headers(path):
            if dtype not in FLOATS and not name.endswith(BUFFERS):
                raise InputError(
                    f"{path}: {name} is stored as {str(dtype).removeprefix('torch.')}; weights are float32, bfloat16 "
                    "or float16. A quantized checkpoint is not read: take the unquantized one"
                )
            if name in found:
                raise InputError(f"{name} is both in {found[name].file} and in {path}")
            found[name] = StoredTensor(file=path, shape=shape, dtype=dtype)
    return found


def _headers(path: Path) -> Iterator[tuple[str, Shape, torch.dtype]]:
    with open_weights(path) as weights:
        for name in weights.names:
            shape, dtype = weights.describe(name)
            yield name, shape, dtype


class _Safetensors:
    """An open safetensors file; tensors are views of the mapped file."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.names: list[str] = list(file.keys())

    def describe(self, name: str) -> tuple[Shape, torch.dtype]:
        part = self._file.get_slice(name)
        empty = part[tuple(slice(0, 0) for _ in part.get_shape())] if part.get_shape() else self._file.get_tensor(name)
        return tuple(part.get_shape()), empty.dtype

    def read(self, name: str) -> Tensor:
        tensor: Tensor = self._file.get_tensor(name)
        return tensor


class _Pickled:
    """A .bin read as tensors alone; they are views of the mapped file where it is a zip."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self._tensors = tensors
        self.names = list(tensors)

    def describe(self, name: str) -> tuple[Shape, torch.dtype]:
        return tuple(self._tensors[name].shape), self._tensors[name].dtype

    def read(self, name: str) -> Tensor:
        return self._tensors[name]


@contextmanager
def open_weights(path: Path) -> Iterator[_Safetensors | _Pickled]:
    """Open one weight file without reading its values.

    Raises:
        InputError: it is damaged, a Git LFS pointer, or a pickle with anything but tensors in it.
    """
    check_no_pointer(path)
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="pt") as opened:
                yield _Safetensors(opened)
        except SafetensorError as error:
            raise InputError(f"{path} is no whole safetensors file: {error}") from error
    else:
        yield _Pickled(_read_pickle(path))


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        loaded = _unpickle(path)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path} was refused: it is a pickle with more than tensors in it, which could run code when it is read"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise InputError(f"{path} is no whole PyTorch weights file: {reason(error)}") from error
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise InputError(f"{path} holds something else than a dictionary of tensors")
    return loaded


def _unpickle(path: Path) -> Any:
    """Mapped where possible; the format before torch 1.6 is no zip and can only be read whole."""
    with path.open("rb") as file:
        is_zip = file.read(4) == b"PK\x03\x04"
    with warnings.catch_warnings():  # about a pickle that is then refused
        warnings.filterwarnings("ignore", message="Detected pickle protocol", category=UserWarning)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
