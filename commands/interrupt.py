"""What all commands have in common: paths that are no URLs, and what Ctrl-C leaves behind, command by command."""

import sys
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand

from ..errors import SettingsError
from ..plain_text import is_url, without_secrets
from .unknown_options import SuggestsOptions

INTERRUPTED = 130
"""Exit code of a command that the user stopped."""

_AFTER_INTERRUPT = {
    "extract": "finished shards are kept: repeat the command with --resume to go on",
    "extend": "finished shards are kept: repeat the command to go on",
    "repair": "what was restored is kept: repeat the command to go on",
    "train": "checkpoints in --out are kept: repeat the command, with --resume where there is one, to go on",
    "evaluate": "finished answers are kept: repeat the command with --resume to go on",
    "compare": "finished answers are kept: repeat the command with --resume to go on",
    "ground": "finished batches are kept: repeat the command with --resume to go on",
    "phantom": "images drawn so far stay in --out: remove it before drawing again",
    "convert": "repeat the command to complete it",
    "sign": "repeat the command to complete it",
    "finish": "repeat the command to complete it",
    "subset": "finished shards are kept in --out: repeat the command to go on",
    "merge": "finished shards are kept in --out: repeat the command to go on",
    "push": "what was sent stays there, unfinished for readers: repeat the command to go on",
    "pull": "what was fetched is kept beside --out: repeat the command to go on",
    "demo": "finished steps are kept: repeat the command to go on",
}
"""What an interrupted command leaves behind; the others leave nothing."""


_PATHS = ("path", "file", "directory")
"""What click calls the types of paths, whose values typer gave as strings here until 0.20."""


class Command(SuggestsOptions, TyperCommand):
    """Takes no URL for a path, writes nothing into a store; says after Ctrl-C what is kept and how to go on."""

    def invoke(self, ctx: Any) -> Any:
        self._require_paths(ctx.params)
        _require_outside_stores(ctx.params)
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            told = _AFTER_INTERRUPT.get(self.name or "", "nothing was written")
            print(f"interrupted; {told}", file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from None

    def _require_paths(self, values: dict[str, Any]) -> None:
        """Check that no path is a URL, for which a folder would be made on this machine.

        Raises:
            SettingsError: one is.
        """
        for parameter in self.params:
            value = values.get(parameter.name or "")
            kind = getattr(getattr(parameter, "type", None), "name", "")
            for path in value if isinstance(value, list | tuple) else [value]:
                if (isinstance(path, Path) or kind in _PATHS) and is_url(str(path)):
                    is_option = parameter.param_type_name == "option"
                    name = parameter.opts[-1] if is_option else (parameter.name or "").upper()
                    raise SettingsError(
                        f"{name}: {without_secrets(str(path))} is a URL, and a place on this machine is needed: "
                        "`medalign store push` writes to URLs; `pull`, `subset`, `merge`, `info` and `verify` read "
                        "from them"
                    )


def _require_outside_stores(values: dict[str, Any]) -> None:
    places = {argument: values.get(name) for name, argument in (("out", "--out"), ("destination", "DESTINATION"))}
    for argument, place in places.items():
        if place is not None and not is_url(str(place)):
            from ..pipeline.stores.output_places import require_outside_stores

            require_outside_stores(Path(place), argument)
