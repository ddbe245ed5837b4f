"""Errors of reading and writing model folders, as one line with the file's name.

Python, safetensors, tokenizers and transformers raise different errors for a damaged file; users see one kind.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from ..errors import InputError, MedalignError
from ..path_checks import is_path_error
from ..plain_text import as_typed, json_kind, quoted_error

LFS_POINTER = b"version https://git-lfs"
LONGEST = 400
"""Maximum number of characters of another library's message."""


@contextmanager
def reading(path: Path, part: str = "") -> Iterator[None]:
    """Convert any error of another library about the files at `path` to an InputError.

    Args:
        path: the file or folder that the block reads.
        part: which part is read, for example "tokenizer"; may be empty.

    Raises:
        InputError: the block raised anything but a MedalignError or an out-of-memory error.
    """
    try:
        yield
    except (MedalignError, MemoryError, torch.OutOfMemoryError, Warning):
        raise
    except BaseException as error:
        if not (isinstance(error, Exception) or _is_panic(error)):
            raise
        where = f"{path}: its {part} cannot be read" if part else f"{path} cannot be read"
        raise InputError(f"{where}: {reason(error)}") from error


def _is_panic(error: BaseException) -> bool:
    """Whether a Rust library (tokenizers, safetensors, polars) panicked; each has its own panic class."""
    return type(error).__module__ == "pyo3_runtime"


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Convert errors of writing files at or under `path`, for example on a full disk, to a MedalignError.

    Raises:
        InputError: the block raised a file system error that another path avoids.
        MedalignError: the block raised any other file system error.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        kind = InputError if isinstance(error, OSError) and is_path_error(error) else MedalignError
        raise kind(f"{path} cannot be written: {reason(error)}") from error


def reason(error: BaseException) -> str:
    """Format an error as one line."""
    if isinstance(error, KeyError):
        return f"no {error}"
    return quoted_error(error, LONGEST)


def unfinished_run(folder: Path) -> str:
    """Advice to add to a message if `folder` is an unfinished training run, else an empty string."""
    checkpoints = sorted(folder.glob("checkpoint-*/trainer_state.json"), key=lambda path: path.stat().st_mtime)
    if not checkpoints:
        return ""
    is_aligned = (folder / "align.yaml").is_file()
    again = "`medalign student align --resume" if is_aligned else "`medalign student train --resume"
    return (
        f". It is an unfinished training run. Continue it with {again} "
        f"--out {as_typed(folder)}`, or pass its last checkpoint, {checkpoints[-1].parent}, as --adapter"
    )


def is_file(path: Path) -> bool:
    """Whether a file exists.

    Raises:
        InputError: this cannot be determined, because the name is too long or a parent folder is not accessible.
    """
    try:
        return path.is_file()
    except (OSError, ValueError) as error:
        raise InputError(f"{_short(path)} cannot be read: {_cause(error)}") from error


def check_no_pointer(path: Path) -> None:
    """Check that a file is not a Git LFS pointer, which Git leaves if Git LFS did not run.

    Raises:
        InputError: it is a pointer, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            start = file.read(len(LFS_POINTER))
    except OSError as error:
        raise InputError(f"{_short(path)} cannot be read: {_cause(error)}") from error
    if start == LFS_POINTER:
        raise InputError(f"{path} is a Git LFS pointer, not the file itself. Run `git lfs pull` in its folder")


def read_text(path: Path) -> str:
    """Read the text of a small file.

    Raises:
        InputError: it cannot be read, is not UTF-8, or is a Git LFS pointer.
    """
    check_no_pointer(path)
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{_short(path)} cannot be read: {_cause(error)}") from error


def read_object(path: Path) -> dict[str, Any]:
    """Read the JSON object in a file.

    Raises:
        InputError: it cannot be read, is not JSON, or contains another JSON value than an object.
    """
    text = read_text(path)
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON: {reason(error)}") from error
    if not isinstance(values, dict):
        raise InputError(f"{path} is not a JSON object: it contains {json_kind(values)}")
    return values


def _cause(error: Exception) -> str:
    return os.strerror(error.errno) if isinstance(error, OSError) and error.errno else reason(error)


def _short(path: Path) -> str:
    """The path, truncated if it is too long to be valid."""
    text = str(path)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."
