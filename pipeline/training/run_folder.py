"""What the folders of all training runs share: whether one can be written to, and what its record says."""

from collections.abc import Collection
from pathlib import Path

from ...errors import InputError, SettingsError
from ...plain_text import as_typed
from ...student.adapters.parameter_names import Part
from ...student.adapters.trainable import TrainableParts
from ...student.training.checkpoints import checkpoints_in, is_whole, last_whole_checkpoint
from ...teacher_cache.store import TeacherStore


def check_run_folder(out: Path, *, resume: bool, finished: bool, before_checkpoints: Collection[str]) -> None:
    """Check that a run can write to `out`, or continue in it.

    Files of a run that was stopped before its first complete checkpoint, `before_checkpoints`, are allowed, and
    replaced. `finished`: whether `out` has a finished run.

    Raises:
        InputError: It is not empty and `resume` is off, or has nothing to continue from.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; pass another --out")
    names = {path.name for path in out.iterdir()} if out.is_dir() else set()
    cut_off = {path.name for path in checkpoints_in(out) if not is_whole(path)}
    last = last_whole_checkpoint(out)
    if resume and last is None and not finished:
        torn = f" ({', '.join(sorted(cut_off))} is incomplete)" if cut_off else ""
        raise InputError(f"{out} has no complete checkpoint to resume from: start without --resume{torn}")
    if names - cut_off - set(before_checkpoints) and not resume:
        how = "pass another --out" if last is None else "pass another --out, or --resume to continue the run in it"
        if finished:
            how = "it contains a finished run; pass another --out"
        raise InputError(f"{out} is not empty: {how}")


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
        raise InputError(
            f"{out} has no {name}, so there is no run in it to resume: start one with {start} --out {as_typed(out)}`"
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


def how_trained(parts: TrainableParts) -> dict[Part, str]:
    """How each trained part of the base was trained."""
    return dict.fromkeys(parts.with_lora, "lora") | dict.fromkeys(parts.whole, "full")
