"""`medalign student compare`: students, adapters, decodings and data sets in one table."""

from pathlib import Path
from typing import Annotated

import typer

from ..errors import SettingsError
from .interrupt import Command
from .options import (
    AsJson,
    Device,
    Engine,
    EngineName,
    Finish,
    Out,
    Resume,
    ShareWorkers,
    TaskPart,
    Threads,
    progress_bars,
    show_report,
    work_request,
)

app = typer.Typer()


@app.command(cls=Command)
def compare(
    spec: Annotated[Path, typer.Argument(help="YAML file of what to compare (docs/comparison.md).")],
    out: Out,
    resume: Resume = False,
    reanalyse: Annotated[
        bool, typer.Option("--reanalyse", help="Score the saved answers again; load no student.")
    ] = False,
    device: Device = None,
    workers: ShareWorkers = 1,
    engine: Engine = EngineName.local,
    threads: Threads = None,
    task: TaskPart = None,
    finish: Finish = False,
    as_json: AsJson = False,
) -> None:
    """Compare students, adapters, decodings and data sets: scores with intervals, tests against a baseline, cost."""
    if resume and reanalyse:
        raise SettingsError("--resume answers what is missing and --reanalyse answers nothing: give one of them")
    if reanalyse and (task is not None or finish):
        raise SettingsError("--reanalyse scores a finished comparison again: --task and --finish have no part in it")
    if resume and finish:
        raise SettingsError("--resume answers what is missing and --finish answers nothing: give one of them")
    from ..pipeline.comparison.spec import load_comparison

    asked = load_comparison(spec)  # before torch: a wrong key is told at once
    from ..pipeline.batches.parts import PartReport
    from ..pipeline.comparison.render import show_comparison
    from ..pipeline.comparison.run import ComparisonReport, reanalyse_comparison, run_comparison
    from ..pipeline.devices import pick_device
    from ..pipeline.requests import device_of
    from ..pipeline.scoring import available_metrics

    work = work_request(engine, workers, threads, task, finish)
    if reanalyse and work.unused():
        raise SettingsError(
            f"--reanalyse scores saved answers and computes no others: leave out {' and '.join(work.unused())}"
        )
    chosen = device_of(device, work)
    metrics = available_metrics(pick_device(None) if work.engine == "ray" else chosen)
    with progress_bars() as progress:
        report: ComparisonReport | PartReport
        if reanalyse:
            report = reanalyse_comparison(asked, out, metrics, progress)
        else:
            report = run_comparison(asked, out, metrics, progress, device=chosen, resume=resume, work=work)
    if isinstance(report, PartReport):
        show_report("task", report, as_json)
        return
    show_comparison(report.summary(), report.grids, as_json=as_json)
