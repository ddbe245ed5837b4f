"""Groups of commands, with a "did you mean" for commands that are misspelled or in another group."""

import shlex
from collections.abc import Iterable, Iterator
from typing import Any, Final

from typer.core import TyperGroup

from ...errors import SettingsError
from ...suggestions import did_you_mean, nearest
from .help_text import WholeHelp
from .unknown_options import SuggestsOptions, lineage, typed_command

_MOVED = {"teacher": "store"}
"""Groups to which commands have moved; those on finished stores were `medalign teacher ...` in earlier versions."""

_SYNONYMS: Final = {
    **dict.fromkeys(("ask", "chat", "infer", "inference", "predict"), "generate"),
    **dict.fromkeys(("analyze", "probe", "probes", "tsne", "t-sne"), "inspect"),
    **dict.fromkeys(("attention", "heatmap", "look", "saliency"), "attend"),
    **dict.fromkeys(("fit", "finetune", "fine-tune"), "train"),
    **dict.fromkeys(("eval", "test", "score"), "evaluate"),
    **dict.fromkeys(("download", "get", "fetch"), "pull"),
    **dict.fromkeys(("upload", "publish"), "push"),
    **dict.fromkeys(("filter", "select"), "subset"),
    **dict.fromkeys(("join", "combine", "concat"), "merge"),
    **dict.fromkeys(("describe", "inspect"), "info"),
    "ls": "list",
    "cat": "show",
    "cp": "copy",
    "zip": "pack",
    "unzip": "unpack",
    "fix": "repair",
}
"""Words for a command in other programs; they are used unless a command of medalign has that name."""

_SIMILAR, _ALIKE = 0.65, 0.8
"""Lowest difflib ratios at which a command is suggested: if it has the same first letter, and otherwise."""

Path = tuple[str, ...]


class CommandGroup(WholeHelp, SuggestsOptions, TyperGroup):
    """A group that rejects unknown commands with a suggestion."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            group = tuple(context.info_name for context in lineage(ctx))
            typed = typed_command(ctx)
            suggested = [" ".join(("medalign", *path)) for path in _meant(ctx.find_root().command, group, args[0])]
            if f"--{args[0]}" in [name for item in self.get_params(ctx) for name in item.opts]:
                suggested = [f"{typed} --{args[0]}"]
            hint = did_you_mean(suggested, quote="`") or f"; `{typed} --help` lists the commands"
            raise SettingsError(f"there is no command `{typed} {shlex.quote(args[0])}`{hint}")
        return super().resolve_command(ctx, args)


def _meant(root: Any, group: Path, name: str) -> list[Path]:
    """Commands that `name` in `group` may have meant; only the most likely if one stands out."""
    paths = list(_commands(root, ()))
    if name not in {path[-1] for path in paths}:
        name = _SYNONYMS.get(name, name)
    if (*group, name) in paths:
        return [(*group, name)]
    moved = (_MOVED.get(group[0], ""), name) if group else ()
    if moved in paths:
        return [moved]
    if same := [path for path in paths if path[-1] == name and path[:-1] != group]:
        return same
    if near := _nearest(name, (path[-1] for path in paths if group and path[:-1] == group)):
        return [(*group, near[0])]
    groups = [(known,) for known, command in root.commands.items() if hasattr(command, "commands")]
    (best,) = _nearest(name, sorted({path[-1] for path in (*groups, *paths)})) or [""]
    return [path for path in (*groups, *paths) if path[-1] == best]


def _nearest(name: str, known: Iterable[str]) -> list[str]:
    """The command that is most similar to `name`, or the only one that starts with it; a similar word is not enough."""
    names = list(known)
    starts = [command for command in names if len(name) > 2 and command.startswith(name)]
    if len(starts) == 1:
        return starts
    same_letter = [command for command in names if command[:1] == name[:1]]
    return nearest(name, same_letter, cutoff=_SIMILAR) or nearest(name, names, cutoff=_ALIKE)


def _commands(group: Any, path: Path) -> Iterator[Path]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, (*path, name))
        else:
            yield (*path, name)
