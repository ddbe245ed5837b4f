"""Registry of decoding methods, and validation of their settings."""

import math
import re
import sys
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from functools import cache
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ...errors import SettingsError
from ...suggestions import suggestion
from .core.method import Method
from .method_code import code_of
from .methods import avisc, beam, damro, dola, greedy, imccd, m3id, nucleus, opera, pai, vcd, vhr

ENTRY_POINTS = "medalign.decodings"
"""Group of entry points with which other packages add methods; each refers to a `Method`."""

_METHODS: dict[str, Method] = {
    module.METHOD.name: module.METHOD
    for module in (greedy, beam, nucleus, vcd, dola, opera, avisc, m3id, damro, pai, imccd, vhr)
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Decoding:
    """A decoding method with all its settings."""

    name: str = "greedy"
    max_new_tokens: int = 128
    settings: Any = field(default_factory=greedy.GreedySettings)
    """Instance of the method's settings class."""

    @property
    def method(self) -> Method:
        return find_method(self.name)

    def record(self) -> dict[str, Any]:
        """What determines the answers, for run.json: method and settings, and the code of a method that users added."""
        code = code_of(self.method)
        return asdict(self) if code is None else {**asdict(self), "code_sha256": code}


def register(method: Method) -> None:
    """Register a method in this process.

    Raises:
        SettingsError: a method of this name exists, or its name or settings cannot be used.
    """
    if not isinstance(method, Method):
        raise SettingsError(f"{method!r} is no medalign.student.decoding.Method, so it cannot be registered")
    if flaws := _flaws(method):
        raise SettingsError(f"the decoding method {method.name!r} cannot be registered: {flaws}")
    if method.name in _METHODS:
        raise SettingsError(f"a decoding method named {method.name!r} already exists. Choose another name")
    if entries := _installed(method.name):
        raise SettingsError(
            f"a decoding method named {method.name!r} is installed already, by {_place(entries[0])}, and needs no "
            "register(). Choose another name if this is another method"
        )
    _METHODS[method.name] = method


def method_names() -> list[str]:
    """Names of all methods: built-in, registered, and from installed packages, which are not loaded."""
    return list(dict.fromkeys([*_METHODS, *(entry.name for entry in installed_entry_points(ENTRY_POINTS))]))


def find_method(name: str) -> Method:
    """The method of this name. Only the package that adds it is loaded, so that a broken one affects no other method.

    Raises:
        SettingsError: there is no such method, or several; or its package cannot be loaded or gives it another name.
    """
    installed = _installed(name)
    if len(installed) + (name in _METHODS) > 1:
        places = [*(["medalign or this process"] if name in _METHODS else []), *map(_place, installed)]
        raise SettingsError(
            f"there are {len(places)} decoding methods named {name!r}: of {', and of '.join(places)}. Rename or "
            "uninstall those of packages that should not be used"
        )
    if name in _METHODS:
        return _METHODS[name]
    if installed:
        return _load(installed[0])
    raise SettingsError(
        f"unknown decoding method {name!r}{_nearest(name, method_names())}. `medalign student decodings` lists all "
        "methods and their settings"
    )


def decodings() -> dict[str, Method]:
    """All methods by name: built-in, registered, and from installed packages.

    Raises:
        SettingsError: a package that adds a method cannot be loaded.
    """
    return {name: find_method(name) for name in method_names()}


@cache
def installed_entry_points(group: str) -> EntryPoints:
    """Read entry points once per process, because the search takes milliseconds and is needed for every answer."""
    return entry_points(group=group)


def choose_decoding(name: str, settings: Mapping[str, object] | None = None, *, max_new_tokens: int) -> Decoding:
    """Select a method and its settings; unset settings keep their defaults.

    Raises:
        SettingsError: there is no such method, or settings are unknown or out of range; lists all problems.
    """
    method, requested = find_method(name), dict(settings or {})
    own = {item.name for item in fields(method.settings)}
    problems = [f"{name} has no setting {key!r}{_nearest(key, own)}" for key in requested if key not in own]
    validated: Any = None
    try:
        validated = TypeAdapter(method.settings).validate_python(
            {key: requested[key] for key in requested if key in own}
        )
        problems += _not_finite(validated)
    except ValidationError as error:
        problems += [f"{_field(item)}: {item['msg']}, found {item['input']!r}" for item in error.errors()]
    if max_new_tokens < 1:
        problems.append(f"max_new_tokens is {max_new_tokens}, but must be at least 1")
    problems += validated.problems() if hasattr(validated, "problems") else []
    if problems:
        raise SettingsError("decoding: " + "; ".join(problems))
    return Decoding(name=name, max_new_tokens=max_new_tokens, settings=validated)


def _installed(name: str) -> list[EntryPoint]:
    """Entry points of this name; one that is found twice counts once."""
    return list({entry.value: entry for entry in installed_entry_points(ENTRY_POINTS) if entry.name == name}.values())


def _place(entry: EntryPoint) -> str:
    return f"{_package(entry)} ({entry.value})"


def _package(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else "an installed package"


def _load(entry: EntryPoint) -> Method:
    package = _package(entry)
    try:
        method = entry.load()
    except (Exception, SystemExit) as error:  # an import that ends the process would take every method with it
        raise SettingsError(
            f"the decoding method {entry.name!r} of {package} cannot be loaded from {entry.value}{_found_at(entry)}: "
            f"{type(error).__name__}: {error}. Correct that package, or uninstall it"
        ) from error
    if not isinstance(method, Method):
        raise SettingsError(
            f"the decoding method {entry.name!r} of {package}: {entry.value} is of type {type(method).__name__}, but "
            "should be a medalign.student.decoding.Method"
        )
    if method.name != entry.name:
        raise SettingsError(
            f"the decoding method of {package} has two names: the entry point is {entry.name!r}, but "
            f"{entry.value}.name is {method.name!r}. Give both the same name, and install the package again"
        )
    if flaws := _flaws(method):
        raise SettingsError(f"the decoding method {entry.name!r} of {package}: {flaws}")
    return method


def _found_at(entry: EntryPoint) -> str:
    """Where Python found the module, if it did: a folder in the current folder can hide the one that is meant."""
    module = sys.modules.get(entry.module)
    places = [getattr(module, "__file__", None), *getattr(module, "__path__", ())]
    return next((f" (found at {place})" for place in places if place), "")


def _flaws(method: Method) -> str:
    """What is wrong with a method that users wrote; empty if nothing is."""
    problems = []
    if not (isinstance(method.name, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", method.name)):
        problems.append(
            f"its name is {method.name!r}, but must begin with a letter from A to Z or a digit, and contain only "
            "these, '-', '_' and '.'"
        )
    answer: Any = method.answer
    if not callable(answer):
        problems.append(f"its answer is {answer!r}, but should be a function")
    if not (isinstance(method.settings, type) and is_dataclass(method.settings)):
        problems.append(f"its settings are {method.settings!r}, but should be a dataclass")
    else:
        required = [item.name for item in fields(method.settings) if item.default is item.default_factory is MISSING]
        problems += [f"its setting {name!r} has no default" for name in required]
    return "; ".join(problems)


def _not_finite(settings: Any) -> list[str]:
    """List settings that are infinite or NaN, which ranges do not exclude."""
    values = {item.name: getattr(settings, item.name) for item in fields(settings)}
    return [
        f"{name}: {value} is not a finite number"
        for name, value in values.items()
        if isinstance(value, float) and not math.isfinite(value)
    ]


def _field(problem: Any) -> str:
    return ".".join(str(part) for part in problem["loc"])


def _nearest(name: str, known: Any) -> str:
    return suggestion(name, known) or f"; choose from: {', '.join(sorted(known)) or 'none'}"
