"""What Ctrl-C leaves behind, command by command."""

import sys
from typing import Any

import typer
from typer.core import TyperCommand

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
    "subset": "finished shards are kept in --out: repeat the command to go on",
    "merge": "finished shards are kept in --out: repeat the command to go on",
    "push": "what was sent stays there, unfinished for readers: repeat the command to go on",
    "pull": "what was fetched is kept beside --out: repeat the command to go on",
    "demo": "finished steps are kept: repeat the command to go on",
}
"""What an interrupted command leaves behind; the others leave nothing."""


class Command(TyperCommand):
    """Says after Ctrl-C what is kept and how to go on."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            told = _AFTER_INTERRUPT.get(self.name or "", "nothing was written")
            print(f"interrupted; {told}", file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from None
