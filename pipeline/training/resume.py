"""Resuming a run: where its settings are, and which of them may change."""

from pathlib import Path
from typing import Any

import yaml

from ...errors import InputError, SettingsError
from ...student.adapters.setting_names import with_current_names
from .settings import CONFIG_FILE, Overrides, Settings, load_settings

MAY_CHANGE = {
    # Where things are; that they are the same is checked by their fingerprints.
    "student.path",
    "data.manifest",
    "data.root",
    "data.store",
    "data.hash_key",
    # How the run reports, saves and uses the machine.
    "training.dataloader_num_workers",
    "training.logging_steps",
    "training.save_steps",
    "training.report_to",
    "training.device",
    "training.sharding",
    "training.gradient_checkpointing",
}
"""Settings that the result does not depend on, but for the rounding of another device."""


def load_run_settings(config: Path | None, out: Path | None, overrides: Overrides = (), *, resume: bool) -> Settings:
    """The settings of `config`; None: those of the run in `out`, which an earlier version may have written.

    Raises:
        SettingsError: a setting is wrong, or there is no `config` and the run is not resumed.
        InputError: there is no `config`, and no run in `out`.
    """
    path = saved_config(out, resume=resume) if config is None else config
    own = resume and out is not None and path.resolve() == (out / CONFIG_FILE).resolve()
    return load_settings(path, overrides, stored=own)


def saved_config(out: Path | None, *, resume: bool) -> Path:
    """The settings file of the run in `out`, for a command line that names none.

    Raises:
        SettingsError: it is not resumed.
        InputError: there is no run in `out`.
    """
    if out is None or not resume:
        raise SettingsError(
            "CONFIG is missing: name a YAML configuration, or continue a run with `--resume --out DIR`, which takes "
            f"the settings in DIR/{CONFIG_FILE}"
        )
    if not (out / CONFIG_FILE).is_file():
        raise InputError(
            f"{out} has no {CONFIG_FILE}, so there is no run in it to resume: start one with "
            f"`medalign student train CONFIG --out {out}`"
        )
    return out / CONFIG_FILE


def check_same_run(settings: Settings, config: Path) -> Settings:
    """Compare settings with those that an interrupted run wrote, and return them; `student.dtype: auto` is the run's.

    Raises:
        InputError: some differ that change the result, each is named with both values; or the run's file is missing or
            damaged.
    """
    try:
        saved = _read_saved(config)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise InputError(f"{config} of the interrupted run cannot be read: {error}") from error
    if settings.student.dtype == "auto":
        student = settings.student.model_copy(update={"dtype": saved.student.dtype})
        settings = settings.model_copy(update={"student": student})
    before, now = (_flat(each.model_dump(mode="json")) for each in (saved, settings))
    changed = [name for name in now if name not in MAY_CHANGE and now[name] != before[name]]
    if changed:
        lines = "\n".join(f"  {name}: {before[name]} before, {now[name]} now" for name in changed)
        length = {"training.max_steps", "training.num_train_epochs"} & set(changed)
        why = "A run of another length has another learning-rate schedule from its first step. " if length else ""
        raise InputError(
            f"--resume continues the run of {config}, but these settings would change its result:\n{lines}\n"
            f"{why}Set them back, or start a new run with another --out."
        )
    return settings


def _read_saved(config: Path) -> Settings:
    values = yaml.safe_load(config.read_text())
    return Settings.model_validate(with_current_names(values) if isinstance(values, dict) else values)


def _flat(values: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {f"{section}.{key}": value for section, keys in values.items() for key, value in keys.items()}
