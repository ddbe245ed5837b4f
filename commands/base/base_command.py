"""The base class of all commands: checks paths, and reports after Ctrl-C what was kept and how to continue."""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from typer.core import TyperCommand

from ...errors import SettingsError
from ...plain_text import is_url, without_secrets
from .error_output import Interrupted, UsageError
from .help_text import WholeHelp
from .unknown_options import SuggestsOptions

_AGAIN = "run the same command again to continue"
_RESUME = "run the same command with --resume to continue"
_COMPLETE = "run the same command again to complete it"
_CHECKPOINTS = (
    "checkpoints in --out are kept; run the same command with --resume to continue, or with another --out if there is "
    "no checkpoint yet"
)
_SHARDS, _COPIES, _ANSWERS = (
    "finished shards are kept",
    "finished shards are kept in --out",
    "finished answers are kept",
)
_AFTER_INTERRUPT = {
    "extract": f"{_SHARDS}; {_RESUME}",
    "extend": f"{_SHARDS}; {_AGAIN}",
    "repair": f"restored files are kept; {_AGAIN}",
    "train": _CHECKPOINTS,
    "align": _CHECKPOINTS,
    "evaluate": f"{_ANSWERS}; {_RESUME}",
    "compare": f"{_ANSWERS}; {_RESUME}",
    "ground": f"finished batches are kept; {_RESUME}",
    "phantom": "images drawn so far are kept in --out; remove it before you run the command again",
    "convert": _COMPLETE,
    "sign": _COMPLETE,
    "finish": _COMPLETE,
    "subset": f"{_COPIES}; {_AGAIN}",
    "merge": f"{_COPIES}; {_AGAIN}",
    "push": f"uploaded files are kept, and readers see an unfinished store; {_AGAIN}",
    "pull": f"downloaded files are kept beside --out; {_AGAIN}",
    "make": f"figures drawn so far are replaced, report.html is not; {_AGAIN}",
    "draw": f"figures drawn so far are replaced; {_AGAIN}",
    "study": f"finished units of work and checkpoints are kept in --out; {_AGAIN}",
    "demo": f"finished steps are kept; {_AGAIN}",
}
"""What an interrupted command leaves behind; commands not listed leave nothing."""

_MAY_BE_EMPTY = ("question", "title", "license")

_PATHS = ("path", "file", "directory")
"""Names of click's path types; typer before 0.20 passes their values as strings here."""


class Command(WholeHelp, SuggestsOptions, TyperCommand):
    """A command that checks its paths, and reports after Ctrl-C what was kept."""

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        typed = list(args)
        with suppress(UsageError):  # which the next call reports
            values, _, order = self.make_parser(ctx).parse_args(args=typed)
            _require_single(order, args)
            self._require_values(values)
        return super().parse_args(ctx, args)

    def _require_values(self, values: dict[str, Any]) -> None:
        """Check that no value is empty, as one is whose shell variable is not set; `Path("")` is the current folder.

        Raises:
            SettingsError: One is; questions and texts for a store's card may be empty.
        """
        for parameter in self.params:
            value = values.get(parameter.name or "")
            has_check = parameter.callback is not None  # a new file or folder, which must end in a name
            if (
                has_check
                or parameter.name in _MAY_BE_EMPTY
                or "" not in (value if isinstance(value, list | tuple) else [value])
            ):
                continue
            raise SettingsError(f"{_typed_name(parameter)} is empty: pass a value (is a shell variable not set?)")

    def invoke(self, ctx: Any) -> Any:
        self._require_paths(ctx.params)
        _check_output_places(ctx.params)
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            kept = _AFTER_INTERRUPT.get(self.name or "", "nothing was written")
            raise Interrupted(f"interrupted; {kept}") from None

    def _require_paths(self, values: dict[str, Any]) -> None:
        """Check that no path is a URL, which would become a folder on this machine.

        Raises:
            SettingsError: A path is a URL.
        """
        for parameter in self.params:
            value = values.get(parameter.name or "")
            kind = getattr(getattr(parameter, "type", None), "name", "")
            for path in value if isinstance(value, list | tuple) else [value]:
                if (isinstance(path, Path) or kind in _PATHS) and is_url(str(path)):
                    raise SettingsError(
                        f"{_typed_name(parameter)}: {without_secrets(str(path))} is a URL, but a local path is needed: "
                        "`medalign store push` writes to URLs; `pull`, `subset`, `merge`, `info`, "
                        "`verify` and `medalign teacher preview` read from them"
                    )


def _require_single(parameters: Sequence[Any], words: Sequence[str]) -> None:
    """Check that no option with a value is passed more often than it is used; all values but the last would be lost.

    Raises:
        SettingsError: One is.
    """
    for parameter, number in Counter(parameters).items():
        if number > 1 and parameter.param_type_name == "option" and not (parameter.multiple or parameter.is_flag):
            values = ", ".join(without_secrets(value) for value in _typed_values(parameter.opts, words))
            raise SettingsError(
                f"{_typed_name(parameter)} is passed {number} times ({values}), but has one value: pass it once"
            )


def _typed_values(options: Sequence[str], words: Sequence[str]) -> list[str]:
    """The values of an option as typed, in both forms: `--out a` and `--out=a`."""
    values = []
    for number, word in enumerate(words):
        name, sign, value = word.partition("=")
        if name in options:
            values.append(value if sign else words[number + 1])
    return values


def _typed_name(parameter: Any) -> str:
    """How messages name an option or argument: `--out`, `STORE`."""
    name: str = parameter.opts[-1] if parameter.param_type_name == "option" else (parameter.name or "").upper()
    return name


def _check_output_places(values: dict[str, Any]) -> None:
    places = {argument: values.get(name) for name, argument in (("out", "--out"), ("destination", "DESTINATION"))}
    for argument, place in places.items():
        if place is not None and not is_url(str(place)):
            from ...pipeline.stores.output_places import check_output

            check_output(Path(place), argument)
