"""Read YAML files and check them against a pydantic model, with all problems in one message."""

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError, ValidationInfo

from ..errors import SettingsError
from ..suggestions import did_you_mean, nearest, spelling

Model = TypeVar("Model", bound=BaseModel)

_LONGEST = 200
"""Longest invalid value in a message, in characters."""


_LARGEST = 10**9
"""Largest number in a setting, except for seeds, which have their own bounds."""


def refuse_enormous(value: Any, info: ValidationInfo) -> Any:
    """Check a field's numbers after conversion: enormous ones would overflow later.

    Raises:
        ValueError: A number is too large.
    """
    values = value if isinstance(value, tuple) else (value,)
    if "seed" not in str(info.field_name) and any(isinstance(item, int | float) and item > _LARGEST for item in values):
        raise ValueError(f"is too large: at most {_LARGEST}")
    return value


class _UniqueKeyLoader(yaml.SafeLoader):
    """Rejects repeated keys; YAML forbids them, but PyYAML silently takes the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for place, key in enumerate(keys):
            if key.value in [earlier.value for earlier in keys[:place]]:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value} is set twice", key.start_mark)
        return super().construct_mapping(node, deep)


def yaml_problem(error: Exception, *, with_place: bool = False) -> str:
    """What is wrong with YAML text; `with_place` adds line, column and a snippet."""
    if "int_max_str_digits" in str(error):
        return "an integer has too many digits"
    if with_place:
        return str(error)
    return " ".join(str(getattr(error, "problem", None) or error).split())[:200]


def _is_yaml(path: Path) -> bool:
    return path.suffix in {".yaml", ".yml"} and path.is_file()


def read_sections(path: Path, model: type[BaseModel]) -> dict[str, Any]:
    """Read the mapping in a YAML file.

    Raises:
        SettingsError: The file does not exist, is not YAML, sets a key twice, or is not a mapping.
    """
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeyLoader)
    except FileNotFoundError as error:
        raise SettingsError(f"the configuration file {path} does not exist{spelling(path, _is_yaml)}") from error
    except IsADirectoryError as error:
        raise SettingsError(f"{path} is a folder: pass a configuration file (YAML)") from error
    except RecursionError as error:
        raise SettingsError(f"{path} cannot be read as YAML: lists or sections are nested too deeply") from error
    except (OSError, ValueError, yaml.YAMLError) as error:  # ValueError: not UTF-8, a bad date, a huge number
        raise SettingsError(f"{path} cannot be read as YAML: {yaml_problem(error, with_place=True)}") from error
    if not isinstance(values, dict):
        raise SettingsError(f"{path} must contain sections ({', '.join(model.model_fields)}), not {values!r}")
    return values


EarlierNames = Mapping[str, Mapping[str, str]]
"""By section: the earlier names of its keys, each with the current one."""


def check_sections(
    path: Path | str, values: dict[str, Any], model: type[Model], earlier: EarlierNames | None = None
) -> Model:
    """Validate values against their model; `path` is their source, and `earlier` has former names of keys.

    Raises:
        SettingsError: Keys are unknown or missing, or values are invalid; each is listed with its value.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise SettingsError(_describe(path, error, model, earlier or {})) from error


def _describe(path: Path | str, error: ValidationError, model: type[BaseModel], earlier: EarlierNames) -> str:
    lines: list[str] = []
    problems = error.errors()
    for problem in problems:
        if problem["type"] == "too_short" and any(_is_inside(other["loc"], problem["loc"]) for other in problems):
            continue  # invalid items are not counted
        if not problem["loc"]:  # about the file as a whole; each line has its keys and values
            lines += [f"  {line}" for line in _message(problem["msg"]).splitlines()]
            continue
        name = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            lines.append(f"  {name}: unknown key{_suggest(problem['loc'], model, earlier)}")
        elif problem["type"] == "missing":
            lines.append(f"  {name}: missing")
        else:
            found = f"{_shortened(problem['input'])}{_quotes(problem['type'], problem['input'])}"
            lines.append(f"  {name}: {_message(problem['msg'])}, found {found}")
    return "\n".join([f"{path} has {len(lines)} problem{'s' if len(lines) > 1 else ''}:", *lines])


def _quotes(kind: str, value: object) -> str:
    """What to do about a text that YAML read as something else; empty if it did not."""
    if kind != "string_type" or not isinstance(value, bool):
        return ""
    words = "yes, on and true" if value else "no, off and false"
    return f" (YAML reads {words} without quotes as {value}: put the text in quotes)"


def _is_inside(location: Sequence[int | str], outer: Sequence[int | str]) -> bool:
    return len(location) > len(outer) and location[: len(outer)] == outer


def _message(text: str) -> str:
    return text.removeprefix("Value error, ")


def _shortened(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."


def _suggest(location: Sequence[int | str], model: type[BaseModel], earlier: EarlierNames) -> str:
    """The closest key, or the current key with its section for an earlier name; all valid keys if none is close."""
    section = model
    for part in location[:-1]:
        if isinstance(part, str):  # a number is an index in a list of sections
            section = _section(section.model_fields[part].annotation)
    known, title = section.model_fields, str(location[0])
    renamed = {old: f"{title}.{new}" for old, new in earlier.get(title, {}).items()}
    names = [renamed.get(name, name) for name in nearest(str(location[-1]), [*known, *renamed])]
    return did_you_mean(names) or f"; valid keys: {', '.join(known)}"


def _section(annotation: Any) -> type[BaseModel]:
    """The model of a field, or of the items of a field that is a list of sections."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(_section(inner) for inner in get_args(annotation) if inner is not Ellipsis)
