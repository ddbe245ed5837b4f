"""`medalign report`: figures and pages of finished commands."""

from pathlib import Path
from typing import Annotated

import typer

from ..choices import FigureFormat
from .base.base_command import Command
from .base.command_group import CommandGroup
from .options import AsJson, ImageRoot, progress_bars, show_report

app = typer.Typer(cls=CommandGroup, no_args_is_help=True, help="Write reports and draw their figures again.")


@app.command(cls=Command)
def make(
    folder: Annotated[
        Path,
        typer.Argument(
            help="Output folder of a finished `student train`, `align`, `evaluate`, `compare`, `ground` or `study`."
        ),
    ],
    manifest: Annotated[
        Path | None, typer.Option("--manifest", help="Manifest with the questions, if it was moved since the run.")
    ] = None,
    root: ImageRoot = None,
    as_json: AsJson = False,
) -> None:
    """Write the report of a finished run again from its saved files: report.html and the folder figures.

    Commands write it themselves, unless MEDALIGN_NO_REPORT is set.
    """
    from ..pipeline.reports.runs.run_report import make_run_report

    with progress_bars() as progress:
        report = make_run_report(folder, manifest, root, progress)
    show_report("report", report, as_json)


@app.command(cls=Command)
def draw(
    folder: Annotated[Path, typer.Argument(help="Folder with a report, or its folder of figures.")],
    figure_format: Annotated[
        FigureFormat | None, typer.Option("--format", help="svg, png or pdf; default: svg and png.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Draw all figures of a report again from their data (Parquet), for example as PDF."""
    from ..pipeline.reports.figures.figure_files import PAGE_FORMATS, draw_again

    with progress_bars() as progress:
        report = draw_again(folder, progress, PAGE_FORMATS if figure_format is None else (figure_format,))
    show_report("figures", report, as_json)
