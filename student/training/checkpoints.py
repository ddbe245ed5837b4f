"""Checkpoints that are whole or recognised as not: a list of their files is written last.

A checkpoint does not depend on how many processes wrote it: adapter, W and the optimiser's state are gathered and
stored by parameter name. Only the random numbers are each process's own.
"""

import errno
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ...atomic import write_whole
from ...errors import InputError, MedalignError
from ..distributed_values import full_value, placed_like, put_back

MARKER = "checkpoint.json"
"""Names every file of a checkpoint with its size; written when all of them are on the disk."""

_NUMBER = re.compile(r"[0-9]+")

STATE_FILE = "trainer_state.json"
"""The Trainer's own record of step and log."""


def checkpoints_in(out: Path) -> list[Path]:
    """All checkpoint folders of a run, the oldest first."""
    found = [path for path in out.glob(f"{PREFIX_CHECKPOINT_DIR}-*") if _NUMBER.fullmatch(path.name.rpartition("-")[2])]
    return sorted(found, key=lambda path: int(path.name.rpartition("-")[2]))


def last_whole_checkpoint(out: Path) -> Path | None:
    """The newest checkpoint that was written to its end."""
    return next((path for path in reversed(checkpoints_in(out)) if is_whole(path)), None)


def is_whole(checkpoint: Path) -> bool:
    """Whether all files that the marker names are there in full length."""
    try:
        files = json.loads((checkpoint / MARKER).read_text())["files"]
        return all((checkpoint / name).stat().st_size == size for name, size in files.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False


def mark_whole(checkpoint: Path) -> None:
    """Bring every file to the disk, then write the marker."""
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file() and path.name != MARKER)
    for path in files:
        _flush(path)
    sizes = {path.relative_to(checkpoint).as_posix(): path.stat().st_size for path in files}
    write_whole(checkpoint / MARKER, json.dumps({"files": sizes}, indent=2) + "\n")


def remove_cut_off(out: Path) -> list[str]:
    """Delete checkpoints that were cut off while they were written or deleted; their names, the oldest first.

    Raises:
        InputError: a file or a link has the name of a checkpoint.
    """
    cut_off = [path for path in checkpoints_in(out) if not is_whole(path)]
    for path in cut_off:
        if path.is_symlink() or not path.is_dir():
            kind = "link" if path.is_symlink() else "file"
            raise InputError(f"{path} is a {kind}, where runs keep folders of their checkpoints: move it elsewhere")
    for path in cut_off:
        shutil.rmtree(path)
    return [path.name for path in cut_off]


@contextmanager
def checkpoint_being_written(checkpoint: Path) -> Iterator[None]:
    """Where a checkpoint cannot be written, what there is of it is deleted and the one before it named.

    Raises:
        MedalignError: the disk is full, or cannot be written for another reason.
    """
    try:
        yield
    except (OSError, SafetensorError, RuntimeError, MedalignError) as error:
        cause = _cause(error)
        if not _is_writing_error(cause):
            raise
        reason = _reason(cause, checkpoint.parent)
        shutil.rmtree(checkpoint, ignore_errors=True)
        last = last_whole_checkpoint(checkpoint.parent)
        kept = "there is no earlier checkpoint" if last is None else f"the last whole checkpoint is {last}"
        then = "start again" if last is None else "run the same command with --resume"
        raise MedalignError(f"{checkpoint} cannot be written: {reason}; {kept}. Make room, then {then}") from error


@contextmanager
def room_for(out: Path) -> Iterator[None]:
    """A disk that is full while anything else of a run is written ends it with one sentence.

    Raises:
        MedalignError: the disk is full.
    """
    try:
        yield
    except (OSError, SafetensorError, MedalignError) as error:
        cause = _cause(error)
        if not _is_full(cause):
            raise
        raise MedalignError(
            f"{out} cannot be written: {_reason(cause, out)}. Make room, then run the same command with --resume, or "
            "without it where there is no checkpoint yet"
        ) from error


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_TORCH_CANNOT_WRITE = ("PytorchStreamWriter failed", "inline_container", "iostream error")
"""What torch.save says where a write fails, without the system's reason."""


def _cause(error: Exception) -> Exception:
    """What the file system or a library said, where one of our own errors is about it."""
    cause = error.__cause__
    return cause if isinstance(error, MedalignError) and isinstance(cause, Exception) else error


def _is_full(error: Exception) -> bool:
    """Whether the disk, the quota or the largest file is full; safetensors tells only in words."""
    if isinstance(error, OSError):
        return error.errno in _FULL
    return any(f"os error {number}" in str(error) for number in _FULL)


def _is_torchs(error: Exception) -> bool:
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _TORCH_CANNOT_WRITE)


def _is_writing_error(error: Exception) -> bool:
    return isinstance(error, OSError | SafetensorError) or _is_torchs(error)


def _reason(error: Exception, folder: Path) -> str:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else _first_line(error)
    if _is_torchs(error):
        reason = f"torch.save failed, as on a full disk ({reason})"
    return f"{reason} ({shutil.disk_usage(folder).free / 2**30:.2f} GiB free in {folder})"


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "the file is damaged")


def read_state(file: Path) -> Any:
    """What torch.save wrote of an optimizer or a schedule, on the CPU.

    Raises:
        InputError: the file is missing or damaged.
    """
    with reading_checkpoint(file):
        return torch.load(file, map_location="cpu", weights_only=True)


@contextmanager
def reading_checkpoint(file: Path) -> Iterator[None]:
    """Name a file of a checkpoint that the block cannot read, and what helps.

    Raises:
        InputError: the file is missing or damaged.
    """
    try:
        yield
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, TypeError, AttributeError, UnpicklingError) as error:
        raise InputError(
            f"{file} cannot be read: {_first_line(error)}. Delete {file.parent} to resume from the checkpoint "
            "before it; where there is none, start again"
        ) from error


def optimiser_state(model: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    """State by parameter name, whole and on the CPU, and the settings of every group; all processes must call this."""
    put_back(model)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    state = {
        names[id(parameter)]: {
            key: full_value(value) if isinstance(value, torch.Tensor) else value for key, value in values.items()
        }
        for parameter, values in sorted(optimiser.state.items(), key=lambda item: names[id(item[0])])
    }
    groups = [{key: value for key, value in group.items() if key != "params"} for group in optimiser.param_groups]
    return {"state": state, "groups": groups}


def restore_optimiser(model: nn.Module, optimiser: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """The reverse of `optimiser_state`, whatever the number of processes was.

    Raises:
        InputError: it is the state of other parameters.
    """
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    strangers = sorted(saved["state"].keys() - parameters.keys())
    if strangers or len(saved["groups"]) != len(optimiser.param_groups):
        raise InputError(
            f"the checkpoint's optimiser has {len(saved['groups'])} groups and parameters that are not trained now "
            f"({', '.join(strangers[:3])}); this run has {len(optimiser.param_groups)} groups"
        )
    for name, values in saved["state"].items():
        parameter = parameters[name]
        optimiser.state[parameter] = {
            key: _placed(parameter, key, value) if isinstance(value, torch.Tensor) else value
            for key, value in values.items()
        }
    for group, values in zip(optimiser.param_groups, saved["groups"], strict=True):
        group.update(values)


def _placed(parameter: nn.Parameter, key: str, value: torch.Tensor) -> torch.Tensor:
    # torch keeps AdamW's step counters on the CPU.
    return value if key == "step" else placed_like(parameter, value)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
