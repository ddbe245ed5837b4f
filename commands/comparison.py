"""`medalign student compare` and `medalign study`: compare students, and ways of training them."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ..errors import SettingsError
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
studies = typer.Typer()
"""Commands without a group."""


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


@studies.command(cls=Command)
def study(
    spec: Annotated[Path, typer.Argument(help="YAML file with regimes, arms, seeds and trials (docs/study.md).")],
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder of the study; optional only with --dry-run.")
    ] = None,
    read_test: Annotated[
        bool,
        typer.Option("--read-test", help="Answer the test questions. This can be done once, and ends development."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything and print runs, memory and time without training.")
    ] = False,
    card: Annotated[
        str | None,
        typer.Option("--card", help="With --dry-run: compare memory with a GPU that has this much, such as 24GB."),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option("--task", help="I/N: this is process I of N that share --out, counted from 0."),
    ] = None,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Run arms x regimes x seeds, tuned on a development split and tested once; run it again to continue."""
    from ..pipeline.studies.study_spec import load_study

    if out is None and not dry_run:
        raise SettingsError("--out is missing: pass a folder for the study, or --dry-run to only check everything")
    if card is not None and not dry_run:
        raise SettingsError(f"--card {card} only applies to the plan: add --dry-run")
    if read_test and dry_run:
        raise SettingsError("--read-test and --dry-run are incompatible: pass only one of them")
    loaded = load_study(spec)  # before importing torch, to report an unknown key at once
    from ..pipeline.studies.run_study import StudyRequest, run_study
    from ..pipeline.studies.study_plan import plan_study
    from ..pipeline.studies.study_table import show_study
    from ..pipeline.training.gpu_memory import parse_card

    if dry_run or out is None:
        with progress_bars() as progress:
            plan = plan_study(loaded, out, None if card is None else parse_card(card), device, progress)
        show_report("plan", plan, as_json)
        show_next("plan", as_json=as_json)
        return
    request = StudyRequest(spec=loaded, read_test=read_test, device=device, task=task)
    with progress_bars() as progress:
        report = run_study(request, out, progress)
        page = write_run_page(out, progress)
    show_study(report, page, as_json=as_json)
    show_next("study" if report.has_test else "development", as_json=as_json, spec=spec, out=out)
