"""Weight files of a checkpoint: finding them, and reading shapes without values."""

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
"""Precisions that weights may be stored in; others are quantized and useless without their scales."""
BUFFERS = (*COMPUTED, ".attn.bias", ".attention.bias")
"""Suffixes of tensors that are not weights: position ids, and attention masks of GPT-2 and GPT-NeoX."""

Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredTensor:
    """File, shape and dtype of a tensor, without its values."""

    file: Path
    shape: Shape
    dtype: torch.dtype


def find_weight_files(folder: Path) -> list[Path]:
    """List the weight files of a folder: the single file, or those in its index; safetensors before .bin.

    The order is that of transformers' `from_pretrained`: `model.safetensors`, its index, `pytorch_model.bin` and its
    index; the first that exists is used. Both loading and fingerprints use this list. It is empty without weights.

    Raises:
        InputError: the index is invalid, or names files that do not exist or are outside the folder.
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
        raise InputError(f"{index} is not an index of weight files: its weight_map is not an object of file names")
    names = sorted(set(weight_map.values()))
    outside = [name for name in names if Path(name).name != name]
    if outside:
        raise InputError(f"{index} refers to files outside its folder: {', '.join(outside)}")
    missing = [name for name in names if not is_file(index.parent / name)]
    if missing:
        raise InputError(
            f"{index.parent} is incomplete: {len(missing)} of {len(names)} weight files are missing: "
            f"{', '.join(missing)}. Copy the complete folder again"
        )
    return [index.parent / name for name in names]


def list_tensors(files: list[Path]) -> dict[str, StoredTensor]:
    """List every tensor in the weight files, by name.

    Raises:
        InputError: a file cannot be read, contains tensors that are not floating-point (except buffers that old
            releases saved), or two files contain the same name.
    """
    tensors: dict[str, StoredTensor] = {}
    for path in files:
        for name, shape, dtype in _headers(path):
            if dtype not in FLOATS and not name.endswith(BUFFERS):
                raise InputError(
                    f"{path}: {name} is stored as {str(dtype).removeprefix('torch.')}; weights must be float32, "
                    "bfloat16 or float16. Quantized checkpoints are not supported: use the unquantized one"
                )
            if name in tensors:
                raise InputError(f"{name} is in both {tensors[name].file} and {path}")
            tensors[name] = StoredTensor(file=path, shape=shape, dtype=dtype)
    return tensors


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
    """A .bin file, read as tensors only; they are views of the mapped file if it is a zip."""

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
        InputError: it is damaged, a Git LFS pointer, or a pickle that contains anything but tensors.
    """
    check_no_pointer(path)
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="pt") as file:
                yield _Safetensors(file)
        except SafetensorError as error:
            raise InputError(f"{path} is not a complete safetensors file: {error}") from error
    else:
        yield _Pickled(_read_pickle(path))


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        loaded = _unpickle(path)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path} was refused: it is a pickle that contains more than tensors and could run code when it is read"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise InputError(f"{path} is not a complete PyTorch weights file: {reason(error)}") from error
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise InputError(f"{path} does not contain a dictionary of tensors")
    return loaded


def _unpickle(path: Path) -> Any:
    """Load a pickle, mapped if possible; the format before torch 1.6 is not a zip and cannot be mapped."""
    with path.open("rb") as file:
        is_zip = file.read(4) == b"PK\x03\x04"
    with warnings.catch_warnings():  # warns about a pickle that is then refused
        warnings.filterwarnings("ignore", message="Detected pickle protocol", category=UserWarning)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
