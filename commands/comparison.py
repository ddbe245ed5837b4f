"""`medalign student compare`: students, adapters, decodings and data sets in one table."""

from pathlib import Path
from typing import Annotated

import typer

from ..errors import SettingsError
from .interrupt import Command
from .options import AsJson, Device, Out, progress_bars

app = typer.Typer()


@app.command(cls=Command)
def compare(
    spec: Annotated[Path, typer.Argument(help="YAML file of what to compare (docs/comparison.md).")],
    out: Out,
    resume: Annotated[bool, typer.Option("--resume", help="Answer what an interrupted comparison is missing.")] = False,
    reanalyse: Annotated[
        bool, typer.Option("--reanalyse", help="Score the saved answers again; load no student.")
    ] = False,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Compare students, adapters, decodings and data sets: scores with intervals, tests against a baseline, cost."""
    if resume and reanalyse:
        raise SettingsError("--resume answers what is missing and --reanalyse answers nothing: give one of them")
    from ..pipeline.comparison.spec import load_comparison

    asked = load_comparison(spec)  # before torch: a wrong key is told at once
    from ..pipeline.comparison.render import show_comparison
    from ..pipeline.comparison.run import reanalyse_comparison, run_comparison
    from ..pipeline.devices import pick_device
    from ..pipeline.scoring import available_metrics

    chosen = pick_device(device)
    metrics = available_metrics(chosen)
    with progress_bars() as progress:
        if reanalyse:
            report = reanalyse_comparison(asked, out, metrics, progress)
        else:
            report = run_comparison(asked, out, metrics, progress, device=chosen, resume=resume)
    show_comparison(report.summary(), report.grids, as_json=as_json)
