"""`medalign student ground`: where a student looks."""

from pathlib import Path
from typing import Annotated

import typer

from .interrupt import Command
from .options import (
    AdapterFolder,
    AsJson,
    Device,
    Dtype,
    DtypeName,
    ImageRoot,
    Limit,
    ManifestFile,
    Out,
    Split,
    StudentFolder,
    Template,
    progress_bars,
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
        typer.Option("--region", help="Measure regions of this name, whatever is asked. Can be repeated."),
    ] = None,
    against: Annotated[
        Path | None, typer.Option("--against", help="An earlier --out on the same questions, to compare with.")
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Questions read at once.")] = 8,
    limit: Limit = None,
    template: Template = None,
    device: Device = None,
    dtype: Dtype = DtypeName.float32,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")] = False,
    as_json: AsJson = False,
) -> None:
    """Measure at every layer how much attention lies on the annotated regions that questions are about."""
    from ..pipeline.grounding.run import GroundingRequest, run_grounding
    from ..pipeline.grounding.table import show_grounding

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
        dtype=dtype.value,
        resume=resume,
    )
    with progress_bars() as progress:
        report = run_grounding(request, out, progress)
    show_grounding(report, as_json=as_json)
