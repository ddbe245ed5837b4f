"""Resuming a run: find its settings, and check which of them changed."""

from collections.abc import Set
from pathlib import Path
from typing import Any

import yaml

from ...errors import InputError
from ...student.adapters.setting_names import with_current_names
from .run_folder import settings_file
from .settings import CONFIG_FILE, Settings
from .settings_loading import Overrides, load_settings

MAY_CHANGE = {
    # Where things are; that they are the same is checked by their fingerprints.
    "student.path",
    "data.manifest",
    "data.root",
    "data.store",
    "data.hash_key",
    # Reporting, saving, and use of the machine.
    "training.dataloader_num_workers",
    "training.logging_steps",
    "training.save_steps",
    "training.report_to",
    "training.device",
    "training.sharding",
    "training.gradient_checkpointing",
}
"""Settings that do not affect the result, except for rounding on another device."""


def load_run_settings(config: Path | None, out: Path | None, overrides: Overrides = (), *, resume: bool) -> Settings:
    """Read the settings in `config`, or if it is None those of the run in `out`, perhaps written by an earlier version.

    Raises:
        SettingsError: A setting is wrong, or `config` is None and the run is not resumed.
        InputError: `config` is None and `out` has no run.
    """
    path = saved_config(out, resume=resume) if config is None else config
    own = resume and out is not None and path.resolve() == (out / CONFIG_FILE).resolve()
    return load_settings(path, overrides, stored=own)


def saved_config(out: Path | None, *, resume: bool) -> Path:
    """The settings file of the run in `out`, if the command line has none.

    Raises:
        SettingsError: `resume` is off.
        InputError: There is no run in `out`.
    """
    return settings_file(out, CONFIG_FILE, "`medalign student train CONFIG", resume=resume)


def check_same_run(settings: Settings, config: Path) -> Settings:
    """Compare settings with those of an interrupted run, and return them with its precision if theirs is `auto`.

    Raises:
        InputError: Some differ that affect the result (listed with both values), or the run's settings file is missing
            or damaged.
    """
    try:
        saved = _read_saved(config)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise InputError(f"{config} of the interrupted run cannot be read: {error}") from error
    if settings.student.dtype == "auto":
        student = settings.student.model_copy(update={"dtype": saved.student.dtype})
        settings = settings.model_copy(update={"student": student})
    refuse_changes(saved.model_dump(mode="json"), settings.model_dump(mode="json"), MAY_CHANGE, config)
    return settings


def refuse_changes(
    saved: dict[str, dict[str, Any]], current: dict[str, dict[str, Any]], may_change: Set[str], config: Path
) -> None:
    """Compare the settings of a run that is resumed, by section, with those that `config` has.

    Raises:
        InputError: Some differ that affect the result; listed with both values.
    """
    before, now = _flat(saved), _flat(current)
    changed = [name for name in now if name not in may_change and now[name] != before[name]]
    if changed:
        lines = "\n".join(f"  {name}: {before[name]} before, {now[name]} now" for name in changed)
        length = {"training.max_steps", "training.steps", "training.num_train_epochs"} & set(changed)
        why = "A run of another length has a different learning-rate schedule from the first step. " if length else ""
        raise InputError(
            f"--resume continues the run of {config}, but these settings would change its result:\n{lines}\n"
            f"{why}Restore them, or start a new run with another --out."
        )


def _read_saved(config: Path) -> Settings:
    values = yaml.safe_load(config.read_text())
    return Settings.model_validate(with_current_names(values) if isinstance(values, dict) else values)


def _flat(values: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {f"{section}.{key}": value for section, keys in values.items() for key, value in keys.items()}
