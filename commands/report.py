"""`medalign report`: figures and pages of finished commands."""

from pathlib import Path
from typing import Annotated

import typer

from .base.base_command import Command
from .base.command_group import CommandGroup
from .options import AsJson, progress_bars

app = typer.Typer(cls=CommandGroup, no_args_is_help=True, help="Draw the figures of reports.")


@app.callback()
def group() -> None:
    """Keep `draw` a command of its own: typer drops the name of an only command."""


@app.command(cls=Command)
def draw(
    folder: Annotated[Path, typer.Argument(help="Folder with a report, or its folder of figures.")],
    as_json: AsJson = False,
) -> None:
    """Draw all figures of a report again, as SVG and PNG, from their data (Parquet)."""
    from ..pipeline.reports.figures.figure_files import draw_again
    from ..pipeline.terminal import show_summary

    with progress_bars() as progress:
        pictures = draw_again(folder, progress)
    show_summary("figures", {"folder": folder, "pictures": [path.name for path in pictures]}, as_json=as_json)
