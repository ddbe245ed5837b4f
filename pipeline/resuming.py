"""Which settings may change when an interrupted run is gone on with."""

from pathlib import Path
from typing import Any

import yaml

from ..errors import InputError, SettingsError
from .settings import Settings

MAY_CHANGE = {
    # Where things are; that they are the same is checked by their fingerprints.
    "student.path",
    "data.manifest",
    "data.root",
    "data.store",
    "data.hash_key",
    # How the run reports, saves and uses the machine.
    "training.workers",
    "training.logging_steps",
    "training.save_steps",
    "training.report_to",
    "training.device",
    "training.sharding",
    "training.gradient_checkpointing",
}
"""Settings that the result does not depend on, but for the rounding of another device."""


def check_same_run(settings: Settings, config: Path) -> None:
    """Compare settings with those that an interrupted run wrote.

    Raises:
        SettingsError: some differ that change the result; each is named with both values.
        InputError: the run's file is missing or damaged.
    """
    try:
        before = _flat(Settings.model_validate(yaml.safe_load(config.read_text())).model_dump(mode="json"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"{config} of the interrupted run cannot be read: {error}") from error
    now = _flat(settings.model_dump(mode="json"))
    changed = [name for name in now if name not in MAY_CHANGE and now[name] != before[name]]
    if changed:
        lines = "\n".join(f"  {name}: {before[name]} before, {now[name]} now" for name in changed)
        raise SettingsError(
            f"--resume goes on with the run of {config}, but these settings would change its result:\n{lines}\n"
            "Set them back, or start a new run with another --out."
        )


def _flat(values: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {f"{section}.{key}": value for section, keys in values.items() for key, value in keys.items()}
