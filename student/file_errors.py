"""Errors of reading and writing model folders, told in one line with the file's name.

Python, safetensors, tokenizers and transformers each raise errors of their own for a damaged file; users see one kind.
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

LFS_POINTER = b"version https://git-lfs"
LONGEST = 400
"""Characters of another library's message that are shown."""


@contextmanager
def reading(path: Path, part: str = "") -> Iterator[None]:
    """Raise one InputError for whatever another library says about the files at `path`.

    Args:
        path: the file or folder that the block reads.
        part: what of it is read, for example "tokenizer"; may be empty.

    Raises:
        InputError: the block raised anything but a MedalignError or a lack of memory.
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
    """Whether a library in Rust (tokenizers, safetensors, polars) panicked; each has a class of its own for that."""
    return type(error).__module__ == "pyo3_runtime"


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise one MedalignError where a file at or under `path` cannot be written, for example on a full disk.

    Raises:
        MedalignError: the block raised an error of the file system.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise MedalignError(f"{path} cannot be written: {reason(error)}") from error


def reason(error: BaseException) -> str:
    """What an error says, in one line."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, KeyError):
        text = f"no {text}"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."


def unfinished_run(folder: Path) -> str:
    """What to add where `folder` lacks a file and is a training run that has not ended, else nothing."""
    checkpoints = sorted(folder.glob("checkpoint-*/trainer_state.json"), key=lambda path: path.stat().st_mtime)
    if not checkpoints:
        return ""
    return (
        f". It is a training run that has not ended: `medalign student train --resume --out {folder}` goes on with it, "
        f"and its last checkpoint, {checkpoints[-1].parent}, can be given as --adapter"
    )


def is_file(path: Path) -> bool:
    """Whether a file is there.

    Raises:
        InputError: this cannot be found out: the name is too long, or a folder on the way may not be entered.
    """
    try:
        return path.is_file()
    except (OSError, ValueError) as error:
        raise InputError(f"{_short(path)} cannot be read: {_cause(error)}") from error


def check_no_pointer(path: Path) -> None:
    """Check that a file is not the pointer that Git leaves where Git LFS did not run.

    Raises:
        InputError: it is one, or it cannot be read.
    """
    try:
        with path.open("rb") as file:
            start = file.read(len(LFS_POINTER))
    except OSError as error:
        raise InputError(f"{_short(path)} cannot be read: {_cause(error)}") from error
    if start == LFS_POINTER:
        raise InputError(f"{path} is a Git LFS pointer, not the file itself: run `git lfs pull` in its folder")


def read_text(path: Path) -> str:
    """The text of a small file.

    Raises:
        InputError: it cannot be read, is no UTF-8, or is a Git LFS pointer.
    """
    check_no_pointer(path)
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{_short(path)} cannot be read: {_cause(error)}") from error


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        InputError: it cannot be read, is no JSON, or holds another JSON value than an object.
    """
    text = read_text(path)
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no JSON: {reason(error)}") from error
    if not isinstance(values, dict):
        raise InputError(f"{path} is no JSON object: it holds a {type(values).__name__}")
    return values


def _cause(error: Exception) -> str:
    return os.strerror(error.errno) if isinstance(error, OSError) and error.errno else reason(error)


def _short(path: Path) -> str:
    """The path, cut where its name is too long for any file."""
    text = str(path)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."
