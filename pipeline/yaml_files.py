"""YAML files that people write: read, and checked against a pydantic model with every problem in one message."""

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError, ValidationInfo

from ..errors import SettingsError
from ..suggestions import did_you_mean, nearest

Model = TypeVar("Model", bound=BaseModel)

_LONGEST = 200
"""Characters of a wrong value that are shown."""


_LARGEST = 10**9
"""No setting uses a larger number but seeds, which have bounds of their own."""


def refuse_enormous(value: Any, info: ValidationInfo) -> Any:
    """Check a field's numbers once they are of its type: far larger ones overflow somewhere later.

    Raises:
        ValueError: one of them is larger than any that is of use.
    """
    values = value if isinstance(value, tuple) else (value,)
    if "seed" not in str(info.field_name) and any(isinstance(item, int | float) and item > _LARGEST for item in values):
        raise ValueError(f"is too large: at most {_LARGEST}")
    return value


class _UniqueKeyLoader(yaml.SafeLoader):
    """Refuses a key that a mapping has twice; YAML forbids it, and PyYAML would take the last one in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for place, key in enumerate(keys):
            if key.value in [earlier.value for earlier in keys[:place]]:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value} is set twice", key.start_mark)
        return super().construct_mapping(node, deep)


def read_sections(path: Path, model: type[BaseModel]) -> dict[str, Any]:
    """The mapping that a YAML file holds.

    Raises:
        SettingsError: there is no such file, it is not YAML, a key is set twice, or it holds something else.
    """
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeyLoader)
    except FileNotFoundError as error:
        raise SettingsError(f"there is no configuration file {path}") from error
    except RecursionError as error:
        raise SettingsError(f"{path} is not readable YAML: its lists or sections are nested too deep") from error
    except (OSError, ValueError, yaml.YAMLError) as error:  # ValueError: no UTF-8, no date, a number of 5000 digits
        raise SettingsError(f"{path} is not readable YAML: {error}") from error
    if not isinstance(values, dict):
        raise SettingsError(f"{path} must hold sections ({', '.join(model.model_fields)}), not {values!r}")
    return values


EarlierNames = Mapping[str, Mapping[str, str]]
"""By section: the earlier names of its keys, each with the current one."""


def check_sections(
    path: Path | str, values: dict[str, Any], model: type[Model], earlier: EarlierNames | None = None
) -> Model:
    """The values as their model; `path` is where they are from, and `earlier` has names that keys no longer have.

    Raises:
        SettingsError: keys are unknown or missing, or values wrong; each is named with what was found.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise SettingsError(_describe(path, error, model, earlier or {})) from error


def _describe(path: Path | str, error: ValidationError, model: type[BaseModel], earlier: EarlierNames) -> str:
    lines: list[str] = []
    for problem in error.errors():
        if not problem["loc"]:  # of the file as a whole: each line names its keys and values
            lines += [f"  {line}" for line in _message(problem["msg"]).splitlines()]
            continue
        name = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            lines.append(f"  {name}: unknown key{_suggest(problem['loc'], model, earlier)}")
        elif problem["type"] == "missing":
            lines.append(f"  {name}: missing")
        else:
            lines.append(f"  {name}: {_message(problem['msg'])}, found {_shortened(problem['input'])}")
    return "\n".join([f"{path} has {len(lines)} problem{'s' if len(lines) > 1 else ''}:", *lines])


def _message(text: str) -> str:
    return text.removeprefix("Value error, ")


def _shortened(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."


def _suggest(location: Sequence[int | str], model: type[BaseModel], earlier: EarlierNames) -> str:
    """The nearest key, of an earlier name the current one with its section; all keys if none is near."""
    section = model
    for part in location[:-1]:
        if isinstance(part, str):  # a number is a place in a list of sections
            section = _section(section.model_fields[part].annotation)
    known, title = section.model_fields, str(location[0])
    renamed = {old: f"{title}.{new}" for old, new in earlier.get(title, {}).items()}
    names = [renamed.get(name, name) for name in nearest(str(location[-1]), [*known, *renamed])]
    return did_you_mean(names) or f"; known here: {', '.join(known)}"


def _section(annotation: Any) -> type[BaseModel]:
    """The model of a field, or of the items of a field that is a list of sections."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(_section(inner) for inner in get_args(annotation) if inner is not Ellipsis)
