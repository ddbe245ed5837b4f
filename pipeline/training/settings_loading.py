"""Reading the settings of a training run, with overrides and every check."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from ...errors import SettingsError
from ...student.adapters.setting_names import EARLIER_NAMES, with_current_names
from ..yaml_files import check_sections, read_sections, yaml_problem
from .setting_conflicts import setting_conflicts
from .settings import Settings

Overrides = Sequence[str] | Mapping[str, Any]
"""`["alignment.beta=0.06"]`, or `{"alignment.beta": 0.06}`."""


def load_settings(path: Path, overrides: Overrides = (), *, stored: bool = False) -> Settings:
    """Read a YAML file and apply overrides such as `alignment.beta=0.06`.

    Paths in it are relative to the working directory. In a `stored` file, which a run wrote, settings may have the
    names of earlier versions.

    Raises:
        SettingsError: the file or an override is wrong; the message lists every problem with the value found.
    """
    values = read_sections(path, Settings)
    return _checked(path, with_current_names(values) if stored else values, overrides)


def settings_of(values: Mapping[str, Any], overrides: Overrides = ()) -> Settings:
    """The settings that a program gives as a mapping of sections, checked as those of a file.

    Raises:
        SettingsError: the values or an override are wrong; the message lists every problem with the value found.
    """
    return _checked("config", deepcopy(dict(values)), overrides)


def _checked(source: Path | str, values: dict[str, Any], overrides: Overrides) -> Settings:
    apply_overrides(values, overrides)
    settings = check_sections(source, values, Settings, EARLIER_NAMES)
    problems = setting_conflicts(settings)
    if problems:
        raise SettingsError(f"{source}: " + "\n".join(problems))
    return settings


def apply_overrides(values: dict[str, Any], overrides: Overrides) -> None:
    """Put all overrides among values read from YAML.

    Raises:
        SettingsError: an override is not of this form, or its section is a value.
    """
    for override in overrides:
        if isinstance(overrides, Mapping):
            _section_of(values, override, override)[override.rpartition(".")[2]] = overrides[override]
        else:
            apply_override(values, override)


def apply_override(values: dict[str, Any], override: str) -> None:
    """Put one `--set SECTION.KEY=VALUE` among values read from YAML; VALUE is YAML too.

    Raises:
        SettingsError: the override is not of this form, or its section is a value.
    """
    name, separator, text = override.partition("=")
    if not separator or not name:
        raise SettingsError(f"--set takes SECTION.KEY=VALUE, for example alignment.beta=0.06, not {override!r}")
    place = _section_of(values, name, override)
    try:
        place[name.rpartition(".")[2]] = yaml.safe_load(text)
    except RecursionError as error:
        raise SettingsError(f"--set {name}: its value is nested too deeply") from error
    except (ValueError, yaml.YAMLError) as error:
        problem = yaml_problem(error)
        raise SettingsError(f"--set {override!r}: its value is not valid YAML: {problem}") from error


def _section_of(values: dict[str, Any], name: str, override: str) -> dict[str, Any]:
    """The section in which a setting called SECTION.KEY is set; made where it is missing.

    Raises:
        SettingsError: a section on the way is a value.
    """
    place = values
    for section in name.split(".")[:-1]:
        place = place.setdefault(section, {})
        if not isinstance(place, dict):
            raise SettingsError(f"--set {override}: {section!r} is a value, not a section")
    return place
