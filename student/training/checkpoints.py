"""Checkpoints; a list of their files is written last, so that incomplete ones are recognized.

A checkpoint does not depend on the number of processes: adapter, W and optimizer state are gathered and stored by
parameter name. Only the random state is stored for each process.
"""

import errno
import json
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

from ...atomic import sync_folder, sync_tree, write_whole
from ...errors import InputError, MedalignError
from ...plain_text import size_text
from ..distributed_values import full_value, placed_like, put_back

MARKER = "checkpoint.json"
"""Lists the files of a checkpoint with their sizes; written after all of them are on disk."""

_NUMBER = re.compile(r"[0-9]+")

STATE_FILE = "trainer_state.json"
"""The Trainer's record of step and log."""


def checkpoints_in(out: Path) -> list[Path]:
    """List all checkpoint folders of a run, oldest first."""
    folders = [
        path for path in out.glob(f"{PREFIX_CHECKPOINT_DIR}-*") if _NUMBER.fullmatch(path.name.rpartition("-")[2])
    ]
    return sorted(folders, key=lambda path: int(path.name.rpartition("-")[2]))


def last_whole_checkpoint(out: Path) -> Path | None:
    """Return the newest complete checkpoint."""
    return next((path for path in reversed(checkpoints_in(out)) if is_whole(path)), None)


def is_whole(checkpoint: Path) -> bool:
    """Whether all files in the marker exist with the right size."""
    try:
        files = json.loads((checkpoint / MARKER).read_text())["files"]
        return all((checkpoint / name).stat().st_size == size for name, size in files.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False


def mark_whole(checkpoint: Path) -> None:
    """Flush every file and folder to disk, then write the marker."""
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file() and path.name != MARKER)
    sync_tree(checkpoint)
    sync_folder(checkpoint.parent)
    sizes = {path.relative_to(checkpoint).as_posix(): path.stat().st_size for path in files}
    write_whole(checkpoint / MARKER, json.dumps({"files": sizes}, indent=2) + "\n")


def remove_cut_off(out: Path) -> list[str]:
    """Delete incomplete checkpoints and return their names, oldest first.

    Raises:
        InputError: a file or a link has the name of a checkpoint.
    """
    incomplete = [path for path in checkpoints_in(out) if not is_whole(path)]
    for path in incomplete:
        if path.is_symlink() or not path.is_dir():
            kind = "link" if path.is_symlink() else "file"
            raise InputError(f"{path} is a {kind}, but checkpoints must be folders. Move it elsewhere")
    for path in incomplete:
        shutil.rmtree(path)
    return [path.name for path in incomplete]


@contextmanager
def checkpoint_being_written(checkpoint: Path) -> Iterator[None]:
    """If a checkpoint cannot be written, delete it and report the last complete one.

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
        kept = "there is no earlier checkpoint" if last is None else f"the last complete checkpoint is {last}"
        then = "start again" if last is None else "run the same command with --resume"
        raise MedalignError(
            f"{checkpoint} cannot be written: {reason}; {kept}. Free disk space, then {then}"
        ) from error


@contextmanager
def room_for(out: Path) -> Iterator[None]:
    """Report a full disk as one message while other files of a run are written.

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
            f"{out} cannot be written: {_reason(cause, out)}. Free disk space, then run the same command with "
            "--resume, or without it if there is no checkpoint yet"
        ) from error


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_TORCH_CANNOT_WRITE = ("PytorchStreamWriter failed", "inline_container", "iostream error")
"""Parts of torch.save's messages about failed writes, which do not give the system's reason."""


def _cause(error: Exception) -> Exception:
    """Return the original error of the file system or a library, if a MedalignError wraps one."""
    cause = error.__cause__
    return cause if isinstance(error, MedalignError) and isinstance(cause, Exception) else error


def _is_full(error: Exception) -> bool:
    """Whether disk, quota or file size limit is exceeded; safetensors reports this only in its message."""
    if isinstance(error, OSError):
        return error.errno in _FULL
    return any(f"os error {number}" in str(error) for number in _FULL)


def _is_torch_write_error(error: Exception) -> bool:
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _TORCH_CANNOT_WRITE)


def _is_writing_error(error: Exception) -> bool:
    return isinstance(error, OSError | SafetensorError) or _is_torch_write_error(error)


def _reason(error: Exception, folder: Path) -> str:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else _first_line(error)
    if _is_torch_write_error(error):
        reason = f"torch.save failed, as on a full disk ({reason})"
    return f"{reason} ({size_text(shutil.disk_usage(folder).free)} are free in {folder})"


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "the file is damaged")


def read_state(file: Path) -> Any:
    """Load the state of an optimizer or a scheduler that torch.save wrote, on the CPU.

    Raises:
        InputError: the file is missing or damaged.
    """
    with reading_checkpoint(file):
        return torch.load(file, map_location="cpu", weights_only=True)


@contextmanager
def reading_checkpoint(file: Path) -> Iterator[None]:
    """Report a checkpoint file that the block cannot read, and the remedy.

    Raises:
        InputError: the file is missing or damaged.
    """
    try:
        yield
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, TypeError, AttributeError, UnpicklingError) as error:
        raise InputError(
            f"{file} cannot be read: {_first_line(error)}. Delete {file.parent} to resume from the previous "
            "checkpoint; if there is none, start again"
        ) from error


def optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """State by parameter name, unsharded and on the CPU, and group settings; all processes must call this."""
    put_back(model)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    state = {
        names[id(parameter)]: {
            key: full_value(value) if isinstance(value, torch.Tensor) else value for key, value in values.items()
        }
        for parameter, values in sorted(optimizer.state.items(), key=lambda item: names[id(item[0])])
    }
    groups = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    return {"state": state, "groups": groups}


def restore_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Restore what `optimizer_state` returned, with any number of processes.

    Raises:
        InputError: the state belongs to other parameters.
    """
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    unexpected = sorted(saved["state"].keys() - parameters.keys())
    if unexpected or len(saved["groups"]) != len(optimizer.param_groups):
        raise InputError(
            f"the checkpoint's optimizer state has {len(saved['groups'])} groups and {len(unexpected)} parameters that "
            f"this run does not train ({', '.join(unexpected[:3])}); this run has {len(optimizer.param_groups)} "
            "groups. Resume with the settings of the original run, or start a new run with another --out"
        )
    for name, values in saved["state"].items():
        parameter = parameters[name]
        optimizer.state[parameter] = {
            key: _placed(parameter, key, value) if isinstance(value, torch.Tensor) else value
            for key, value in values.items()
        }
    for group, values in zip(optimizer.param_groups, saved["groups"], strict=True):
        group.update(values)


def _placed(parameter: nn.Parameter, key: str, value: torch.Tensor) -> torch.Tensor:
    # torch keeps AdamW's step counters on the CPU.
    return value if key == "step" else placed_like(parameter, value)
