"""`medalign config`: the configurations and examples installed with medalign."""

from pathlib import Path
from typing import Annotated

import typer

from .base.base_command import Command
from .base.command_group import CommandGroup
from .options import AsJson, RowFormat, output_format, show_report

app = typer.Typer(cls=CommandGroup, no_args_is_help=True, help="List, print and copy configurations and examples.")

Name = Annotated[str, typer.Argument(help="Name from `medalign config list`.")]


@app.command("list", cls=Command)
def list_files(as_json: AsJson = False, row_format: RowFormat = None) -> None:
    """List the configurations and examples installed with medalign."""
    from ..pipeline.row_output import show_in_format
    from ..pipeline.shipped_files import shipped_rows, show_shipped_files

    show_in_format(output_format(as_json, row_format), shipped_rows, show_shipped_files)


@app.command(cls=Command)
def show(name: Name, as_json: AsJson = False) -> None:
    """Print a configuration or example."""
    from ..pipeline.shipped_files import show_shipped

    show_shipped(name, as_json=as_json)


@app.command(cls=Command)
def copy(
    name: Name,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="New file, or an existing folder; default: the same name in the current folder."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
    as_json: AsJson = False,
) -> None:
    """Copy a configuration or example to a file that you can edit."""
    from ..pipeline.shipped_files import copy_shipped

    show_report("copied file", copy_shipped(name, out, force=force), as_json)
