"""Groups of commands, with a "did you mean" for commands that are misspelled or in another group."""

from collections.abc import Iterator
from typing import Any

from typer.core import TyperGroup

from ...errors import SettingsError
from ...suggestions import did_you_mean, nearest
from .help_text import WholeHelp
from .unknown_options import SuggestsOptions, lineage, typed_command

_MOVED = {"teacher": "store"}
"""Groups to which commands have moved; those on finished stores were `medalign teacher ...` in earlier versions."""

Path = tuple[str, ...]


class CommandGroup(WholeHelp, SuggestsOptions, TyperGroup):
    """A group that rejects unknown commands with a suggestion."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            group = tuple(context.info_name for context in lineage(ctx))
            suggested = [" ".join(("medalign", *path)) for path in _meant(ctx.find_root().command, group, args[0])]
            typed = typed_command(ctx)
            hint = did_you_mean(suggested, quote="`") or f"; `{typed} --help` lists the commands"
            raise SettingsError(f"there is no command `{typed} {args[0]}`{hint}")
        return super().resolve_command(ctx, args)


def _meant(root: Any, group: Path, name: str) -> list[Path]:
    """Commands that `name` in `group` may have meant; only the most likely if one stands out."""
    paths = list(_commands(root, ()))
    moved = (_MOVED.get(group[0], ""), name) if group else ()
    if moved in paths:
        return [moved]
    if same := [path for path in paths if path[-1] == name and path[:-1] != group]:
        return same
    if near := nearest(name, (path[-1] for path in paths if group and path[:-1] == group)):
        return [(*group, near[0])]
    groups = [(known,) for known, command in root.commands.items() if hasattr(command, "commands")]
    (best,) = nearest(name, {path[-1] for path in (*groups, *paths)}) or [""]
    return [path for path in (*groups, *paths) if path[-1] == best]


def _commands(group: Any, path: Path) -> Iterator[Path]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, (*path, name))
        else:
            yield (*path, name)
