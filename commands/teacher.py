"""`medalign teacher`: the registry of teachers and stage one."""

from pathlib import Path
from typing import Annotated

import typer

from .interrupt import Command
from .options import AsJson, DataUse, Device, Dtype, DtypeName, GeometryName, ImageRoot, Out, progress_bars, show_report

app = typer.Typer(no_args_is_help=True, help="Stage one: run a teacher once, keep its targets in a store.")


@app.command("list", cls=Command)
def list_teachers(as_json: AsJson = False) -> None:
    """The teachers medalign knows and the weights file each wants."""
    from ..pipeline.extraction import show_teachers

    show_teachers(as_json=as_json)


@app.command(cls=Command)
def extract(
    out: Out,
    teacher_name: Annotated[str, typer.Option("--teacher", help="Name of the teacher (`medalign teacher list`).")],
    weights: Annotated[str, typer.Option("--weights", help="Its weights: a file, a folder, or hf-hub:ID.")],
    manifest: Annotated[Path | None, typer.Option("--manifest", help="Images of this manifest.")] = None,
    images: Annotated[Path | None, typer.Option("--images", help="All images under this folder.")] = None,
    root: ImageRoot = None,
    grid: Annotated[str, typer.Option("--grid", help="The student's image tokens, ROWSxCOLUMNS.")] = "24x24",
    geometry: Annotated[
        GeometryName, typer.Option("--geometry", help="pad (as the student) or crop.")
    ] = GeometryName.pad,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Images in one forward pass.")] = 16,
    shard_rows: Annotated[
        int | None, typer.Option("--shard-rows", min=1, help="Images in one shard; default: by the number of images.")
    ] = None,
    device: Device = None,
    dtype: Dtype = DtypeName.float32,
    data_use: Annotated[
        DataUse | None,
        typer.Option("--data-use", help="Data-use class of --images, default private; a manifest has its own."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted extraction.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run a teacher over every image once and write E_v and E_a to a store."""
    from ..pipeline.extraction import ExtractionRequest, run_extraction

    request = ExtractionRequest(
        teacher=teacher_name,
        weights=weights,
        out=out,
        manifest=manifest,
        images=images,
        root=root,
        grid=grid,
        geometry=geometry.value,
        batch_size=batch_size,
        shard_rows=shard_rows,
        device=device,
        dtype=dtype.value,
        data_use=data_use.value if data_use else None,
        resume=resume,
    )
    with progress_bars() as progress:
        report = run_extraction(request, progress)
    show_report("store", report, as_json)
    report.raise_for_failures()
