"""All decoding methods by name, and the choice of one with its settings."""

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from importlib.metadata import EntryPoints, entry_points
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ...errors import SettingsError
from .core.method import Method
from .methods import avisc, beam, damro, dola, greedy, imccd, m3id, nucleus, opera, pai, vcd, vhr

ENTRY_POINTS = "medalign.decodings"
"""Entry points of this group, each naming a `Method`, add methods of other packages."""

_METHODS: dict[str, Method] = {
    module.METHOD.name: module.METHOD
    for module in (greedy, beam, nucleus, vcd, dola, opera, avisc, m3id, damro, pai, imccd, vhr)
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Decoding:
    """A method with all its settings: how an answer is searched for."""

    name: str = "greedy"
    max_new_tokens: int = 128
    settings: Any = field(default_factory=greedy.GreedySettings)
    """Of the class that the method names."""

    @property
    def method(self) -> Method:
        return decodings()[self.name]


def register(method: Method) -> None:
    """Add a method, for the time of this process.

    Raises:
        SettingsError: there is one of this name.
    """
    if method.name in decodings():
        raise SettingsError(f"a decoding method called {method.name!r} is there already: give yours another name")
    _METHODS[method.name] = method


def decodings() -> dict[str, Method]:
    """Every method by name: medalign's own, registered ones, and those of installed packages."""
    found = dict(_METHODS)
    for entry in installed_entry_points(ENTRY_POINTS):
        if entry.name not in found:
            found[entry.name] = entry.load()
    return found


@cache
def installed_entry_points(group: str) -> EntryPoints:
    """Read once a process: the search through all installed packages takes milliseconds, and every answer needs it."""
    return entry_points(group=group)


def choose_decoding(name: str, settings: Mapping[str, object] | None = None, *, max_new_tokens: int) -> Decoding:
    """A method with the settings asked for; the others keep their defaults.

    Raises:
        SettingsError: there is no such method, or some settings are not its own or out of their range; all are told.
    """
    known = decodings()
    if name not in known:
        raise SettingsError(
            f"no decoding is called {name!r}{_nearest(name, known)}. `medalign student decodings` lists them with "
            "their settings"
        )
    method, asked = known[name], dict(settings or {})
    own = {item.name for item in fields(method.settings)}
    problems = [f"{name} has no setting {key!r}{_nearest(key, own)}" for key in asked if key not in own]
    chosen: Any = None
    try:
        chosen = TypeAdapter(method.settings).validate_python({key: asked[key] for key in asked if key in own})
        problems += _not_finite(chosen)
    except ValidationError as error:
        problems += [f"{_place(item)}: {item['msg']}, found {item['input']!r}" for item in error.errors()]
    if max_new_tokens < 1:
        problems.append(f"max_new_tokens is {max_new_tokens}, not 1 or more")
    problems += chosen.problems() if hasattr(chosen, "problems") else []
    if problems:
        raise SettingsError("decoding: " + "; ".join(problems))
    return Decoding(name=name, max_new_tokens=max_new_tokens, settings=chosen)


def _not_finite(settings: Any) -> list[str]:
    """Settings that are infinite or not a number, which no range keeps out."""
    values = {item.name: getattr(settings, item.name) for item in fields(settings)}
    return [
        f"{name}: {value} is not a finite number"
        for name, value in values.items()
        if isinstance(value, float) and not math.isfinite(value)
    ]


def _place(problem: Any) -> str:
    return ".".join(str(part) for part in problem["loc"])


def _nearest(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if close:
        return f" (did you mean {close[0]!r}?)"
    return f"; there are: {', '.join(sorted(known)) or 'none'}"
