"""A "did you mean" for options that do not exist."""

import sys
from collections.abc import Iterator
from typing import Any

import typer

from ...errors import SettingsError
from ...suggestions import did_you_mean, nearest

_NoSuchOption: Any = sys.modules[typer.BadParameter.__module__].NoSuchOption  # of click, or of typer's copy of it


class SuggestsOptions:
    """A command or group that rejects unknown options with a suggestion."""

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        try:
            return super().parse_args(ctx, args)  # type: ignore[misc]
        except _NoSuchOption as error:
            command = typed_command(ctx)
            hint = did_you_mean(_meant(ctx, error.option_name), quote="`") or f"; `{command} --help` lists the options"
            if _is_of_a_command(ctx.command, error.option_name):
                hint = f": options follow the whole command, as in `{command} COMMAND {error.option_name}`"
            raise SettingsError(f"there is no option `{error.option_name}` of `{command}`{hint}") from error


def _is_of_a_command(group: Any, option: str) -> bool:
    """Whether a command in `group` has this option, which was typed before the command's name."""
    commands = getattr(group, "commands", {}).values()
    return any(
        _is_of_a_command(command, option) or option in (name for item in command.params for name in item.opts)
        for command in commands
    )


def _meant(ctx: Any, name: str) -> list[str]:
    """The option closest to `name`, or one that `name` starts with, such as `--out` for `--output-dir`."""
    parameters = [item for item in ctx.command.get_params(ctx) if item.param_type_name == "option"]
    options = {option.lstrip("-"): option for parameter in parameters for option in parameter.opts}
    bare = name.lstrip("-")
    return [options[near] for near in nearest(bare, options) or [start for start in options if bare.startswith(start)]]


def typed_command(ctx: Any) -> str:
    """The command line of a context, such as `medalign student train`."""
    return " ".join(("medalign", *(context.info_name for context in lineage(ctx))))


def lineage(ctx: Any) -> Iterator[Any]:
    """The contexts from the first one below the root down to this one."""
    if ctx.parent is not None:
        yield from lineage(ctx.parent)
        yield ctx
