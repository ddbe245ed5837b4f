"""`medalign student ground`: where a student looks."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from .base.base_command import Command
from .options import (
    AdapterFolder,
    AsJson,
    BatchSize,
    Device,
    Engine,
    Finish,
    ImageRoot,
    InferenceDtype,
    KeepLoraApart,
    Limit,
    ManifestFile,
    Out,
    Resume,
    RowFormat,
    ShareWorkers,
    Split,
    StudentFolder,
    TaskPart,
    Template,
    Threads,
    output_format,
    progress_bars,
    show_report,
    work_request,
    write_run_page,
)

app = typer.Typer()


@app.command(cls=Command)
def ground(
    student_folder: StudentFolder,
    manifest: ManifestFile,
    out: Out,
    adapter: AdapterFolder = None,
    split: Split = "test",
    root: ImageRoot = None,
    region: Annotated[
        list[str] | None,
        typer.Option("--region", help="Measure only regions with this name, regardless of the question. Repeatable."),
    ] = None,
    against: Annotated[
        Path | None, typer.Option("--against", help="Compare with an earlier --out on the same questions.")
    ] = None,
    batch_size: BatchSize = 8,
    limit: Limit = None,
    template: Template = None,
    device: Device = None,
    dtype: InferenceDtype = "auto",
    keep_lora_apart: KeepLoraApart = False,
    workers: ShareWorkers = 1,
    engine: Engine = "local",
    threads: Threads = None,
    task: TaskPart = None,
    finish: Finish = False,
    resume: Resume = False,
    as_json: AsJson = False,
    row_format: RowFormat = None,
) -> None:
    """Measure, at every layer, how much attention is on the annotated regions that questions are about."""
    from ..pipeline.evaluation.batches.array_tasks import PartReport
    from ..pipeline.evaluation.grounding.ground import GroundingRequest, run_grounding
    from ..pipeline.evaluation.grounding.grounding_table import grounding_rows, show_grounding
    from ..pipeline.row_output import show_in_format

    chosen = output_format(as_json, row_format)
    request = GroundingRequest(
        student=student_folder,
        adapter=adapter,
        manifest=manifest,
        root=root,
        split=split,
        regions=tuple(region or ()),
        against=against,
        batch_size=batch_size,
        limit=limit,
        template=template,
        device=device,
        dtype=dtype,
        keep_lora_apart=keep_lora_apart,
        work=work_request(engine, workers, threads, task, finish),
        resume=resume,
    )
    with progress_bars() as progress:
        report = run_grounding(request, out, progress)
        page = {} if isinstance(report, PartReport) else write_run_page(out, progress)
    if isinstance(report, PartReport):
        show_report("task", report, chosen != "table")
    else:
        show_in_format(chosen, partial(grounding_rows, report), partial(show_grounding, report, page))
