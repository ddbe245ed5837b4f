"""`medalign assets`: models and data files that metrics need."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..choices import OutputFormat
from .base.base_command import Command
from .base.command_group import CommandGroup
from .options import AsJson, RowFormat, output_format, progress_bars, show_report

if TYPE_CHECKING:
    from ..pipeline.assets.asset_registry import AssetReport

app = typer.Typer(cls=CommandGroup, no_args_is_help=True, help="Local models and data files that report metrics need.")


@app.command("list", cls=Command)
def list_all(as_json: AsJson = False, row_format: RowFormat = None) -> None:
    """List what report metrics need, what is installed, and where to get the rest."""
    from ..pipeline.assets.asset_registry import list_assets

    print_assets(list_assets(), output_format(as_json, row_format))


@app.command(cls=Command)
def add(
    name: Annotated[str, typer.Argument(help="Name of the asset, from `medalign assets list`.")],
    folder: Annotated[Path, typer.Argument(help="Folder with its files; they are not copied.")],
    as_json: AsJson = False,
) -> None:
    """Check a folder, hash its files and add it to the asset list."""
    from ..pipeline.assets.asset_registry import add_asset

    with progress_bars() as progress:
        report = add_asset(name, folder, progress)
    show_report("asset", report, as_json)


@app.command(cls=Command)
def verify(
    names: Annotated[list[str] | None, typer.Argument(help="Names of assets; default: all that were added.")] = None,
    as_json: AsJson = False,
    row_format: RowFormat = None,
) -> None:
    """Hash the files of assets again and compare them with the asset list."""
    from ..pipeline.assets.asset_registry import raise_for_changes, verify_assets

    chosen = output_format(as_json, row_format)
    with progress_bars() as progress:
        reports = verify_assets(names or [], progress)
    print_assets(reports, chosen)
    raise_for_changes(reports)


def print_assets(reports: "Sequence[AssetReport]", chosen: OutputFormat) -> None:
    """Print the state of each asset in the chosen format."""
    from ..pipeline.assets.asset_registry import COLUMNS
    from ..pipeline.row_output import Rows, show_in_format

    show_in_format(chosen, lambda: Rows(COLUMNS, [report.row() for report in reports]), partial(show_assets, reports))


def show_assets(reports: "Sequence[AssetReport]", *, as_json: bool) -> None:
    """Print the state of each asset, then where to get the missing ones."""
    from ..pipeline.assets.asset_registry import COLUMNS
    from ..pipeline.terminal import print_json, show_rows, show_summary

    if as_json:
        print_json({report.name: report.summary() for report in reports})
        return
    show_rows("assets", COLUMNS, [report.row() for report in reports], as_json=False)
    sources = {report.name: report.source for report in reports if report.folder is None}
    if sources:
        show_summary("where to get them", sources, as_json=False)
