"""`medalign student compare`: compare students, adapters, decodings and data sets."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from .base.base_command import Command
from .next_steps import show_next
from .options import (
    AsJson,
    Device,
    Engine,
    Finish,
    Out,
    Resume,
    RowFormat,
    ShareWorkers,
    TaskPart,
    Threads,
    output_format,
    progress_bars,
    show_report,
    work_request,
    write_run_page,
)

app = typer.Typer()


@app.command(cls=Command)
def compare(
    spec: Annotated[Path, typer.Argument(help="YAML file that lists what to compare (docs/comparison.md).")],
    out: Out,
    resume: Resume = False,
    reanalyze: Annotated[
        bool, typer.Option("--reanalyze", help="Score the saved answers again without loading a student.")
    ] = False,
    device: Device = None,
    workers: ShareWorkers = 1,
    engine: Engine = "local",
    threads: Threads = None,
    task: TaskPart = None,
    finish: Finish = False,
    as_json: AsJson = False,
    row_format: RowFormat = None,
) -> None:
    """Compare students, adapters, decodings and data sets: scores with intervals, tests against a baseline, cost."""
    from ..pipeline.evaluation.comparison.spec import load_comparison

    chosen = output_format(as_json, row_format)
    loaded = load_comparison(spec)  # before importing torch, to report an unknown key at once
    from ..pipeline.evaluation.batches.array_tasks import PartReport
    from ..pipeline.evaluation.comparison.compare_request import ComparisonRequest, compare_students
    from ..pipeline.evaluation.comparison.render import show_comparison
    from ..pipeline.row_output import show_in_format

    request = ComparisonRequest(
        spec=loaded,
        resume=resume,
        reanalyze=reanalyze,
        device=device,
        work=work_request(engine, workers, threads, task, finish),
    )
    with progress_bars() as progress:
        report = compare_students(request, out, progress)
        page = {} if isinstance(report, PartReport) else write_run_page(out, progress)
    if isinstance(report, PartReport):
        show_report("task", report, chosen != "table")
        return
    show_in_format(chosen, report.rows, partial(show_comparison, report.summary() | page, report.grids))
    show_next("compare", as_json=chosen != "table")
