"""What the folders of all training runs share: whether one can be written to, how it ended, what its record says."""

import json
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeVar

from safetensors import SafetensorError, safe_open

from ...atomic import is_temporary
from ...errors import InputError, SettingsError
from ...plain_text import as_typed
from ...student.adapters.adapter_folder import (
    ADAPTER_RECORD,
    START_FOLDER,
    AdapterRecord,
    StartAdapter,
    adapter_files,
    read_adapter_record,
)
from ...student.adapters.parameter_names import Part
from ...student.adapters.trainable import TrainableParts
from ...student.training.checkpoints import checkpoints_in, is_whole, last_whole_checkpoint
from ...suggestions import to_pass
from ...teacher_cache.store import TeacherStore

Report = TypeVar("Report")
_BEFORE_CHECKPOINTS: Final = {START_FOLDER}


def check_run_folder(out: Path, *, resume: bool, finished: bool, before_checkpoints: Collection[str]) -> None:
    """Check that a run can write to `out`, or continue in it.

    Files of a run that was stopped before its first complete checkpoint, `before_checkpoints`, are allowed, and
    replaced. `finished`: whether `out` has a finished run.

    Raises:
        InputError: It is not empty and `resume` is off, or has nothing to continue from.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; pass another --out")
    names = {path.name for path in out.iterdir() if not is_temporary(path.name)} if out.is_dir() else set()
    cut_off = {path.name for path in checkpoints_in(out) if not is_whole(path)}
    last = last_whole_checkpoint(out)
    if resume and last is None and not finished:
        torn = f" ({', '.join(sorted(cut_off))} is incomplete)" if cut_off else ""
        raise InputError(f"{out} has no complete checkpoint to resume from: start without --resume{torn}")
    if names - cut_off - _BEFORE_CHECKPOINTS - set(before_checkpoints) and not resume:
        how = "pass another --out" if last is None else "pass another --out, or --resume to continue the run in it"
        if finished:
            how = "it contains a finished run; pass another --out"
        raise InputError(f"{out} is not empty: {how}")


def read_finished_run(out: Path, summary_file: str, parse: Callable[[Any], Report]) -> Report | None:
    """The report in the summary of a finished run; None if it was interrupted, killed or never started.

    The summary is written last, so one that cannot be read is that of a killed run.
    """
    if not (out / ADAPTER_RECORD).is_file():
        return None
    try:
        return parse(json.loads((out / summary_file).read_text()))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def check_adapter_files(out: Path, summary_file: str) -> None:
    """Check that a finished run still has the complete files of its adapter, and of the one that it started from.

    Raises:
        InputError: Some are missing or truncated; the message lists all, and how to write them again.
    """
    files = sorted(_all_files(out, read_adapter_record(out)))
    missing = [str(path.relative_to(out)) for path in files if not path.is_file()]
    harmed = missing or [str(path.relative_to(out)) for path in files if not _is_whole_file(path)]
    if not harmed:
        return
    last = last_whole_checkpoint(out)
    then = f"copy the folder again, or train again with another --out, because {out} has no checkpoint"
    if last is not None:
        then = f"delete {out / summary_file} and run the command again to restore the adapter from {last.name}"
    state = "missing" if missing else "damaged"
    raise InputError(f"the run in {out} is finished, but {', '.join(harmed)} is {state}: {then}")


def _all_files(folder: Path, record: AdapterRecord) -> set[Path]:
    files = {folder / name for name in adapter_files(record)}
    if record.start is not None:
        start = folder / START_FOLDER
        files |= {start / ADAPTER_RECORD}
        files |= _all_files(start, read_adapter_record(start)) if (start / ADAPTER_RECORD).is_file() else set()
    return files


def _is_whole_file(path: Path) -> bool:
    """Whether the header of a safetensors file, which includes the file's length, can be read."""
    if path.name == ADAPTER_RECORD:
        return True
    try:
        with safe_open(path, framework="pt"):
            return True
    except (OSError, SafetensorError):
        return False


def settings_file(out: Path | None, name: str, start: str, *, resume: bool) -> Path:
    """The settings file of the run in `out`, if the command line has none; `start` begins the command of a new run.

    Raises:
        SettingsError: `resume` is off.
        InputError: There is no run in `out`.
    """
    if out is None or not resume:
        raise SettingsError(
            "CONFIG is missing: pass a YAML configuration, or continue a run with `--resume --out DIR`, which reads "
            f"the settings from DIR/{name}"
        )
    if not (out / name).is_file():
        near = to_pass(out, lambda folder: (folder / name).is_file())
        raise InputError(
            f"{out} has no {name}, so there is no run in it to resume: start one with {start} --out {as_typed(out)}`"
            + (f", or {near}" if near else "")
        )
    return out / name


def store_record(store: TeacherStore) -> dict[str, object]:
    """What an adapter's record says of the store that it was trained from."""
    return {
        "fingerprint": store.header.fingerprint,
        "root_sha256": store.root_sha256,
        "teacher": store.header.teacher,
        "weights_sha256": store.header.weights_sha256,
        "data_use": store.header.data_use,
        "title": store.header.title,
        "license": store.header.licence,
    }


def start_record(start: StartAdapter | None, out: Path) -> StartAdapter | None:
    """What the record of an adapter in `out` says of the one that it starts from, which is copied there."""
    return None if start is None else replace(start, folder=str(out / START_FOLDER))


def how_trained(parts: TrainableParts) -> dict[Part, str]:
    """How each trained part of the base was trained."""
    return dict.fromkeys(parts.with_lora, "lora") | dict.fromkeys(parts.whole, "full")
