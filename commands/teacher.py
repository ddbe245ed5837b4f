"""`medalign teacher`: the registry of teachers, stage one, and a look at what a store holds."""

from pathlib import Path
from typing import Annotated

import typer

from .base.base_command import Command
from .base.command_group import CommandGroup
from .next_steps import show_next
from .options import (
    AsJson,
    DecodeWorkers,
    Device,
    Dtype,
    Engine,
    Geometry,
    Grid,
    HashKeyFile,
    ImageBatchSize,
    ImageLimit,
    ImageRoot,
    ImagesDataUse,
    ImagesFolder,
    ImagesManifest,
    JpegScale,
    NamedOut,
    Profile,
    Resume,
    RowFormat,
    Seed,
    ShardRows,
    ShardTask,
    StoreLocation,
    StorePath,
    Tolerance,
    Weights,
    Workers,
    WorkerThreads,
    output_format,
    progress_bars,
    show_report,
)

app = typer.Typer(cls=CommandGroup, no_args_is_help=True, help="Stage one: run a teacher once and store its targets.")


@app.command("list", cls=Command)
def list_teachers(as_json: AsJson = False, row_format: RowFormat = None) -> None:
    """List the available teachers and the weights file that each needs."""
    from ..pipeline.extraction.teacher_list import show_teachers, teacher_rows
    from ..pipeline.row_output import show_in_format

    show_in_format(output_format(as_json, row_format), teacher_rows, show_teachers)


@app.command(cls=Command)
def extract(
    out: NamedOut,
    teacher_name: Annotated[str, typer.Option("--teacher", help="Name of the teacher (`medalign teacher list`).")],
    weights: Weights,
    manifest: ImagesManifest = None,
    images: ImagesFolder = None,
    root: ImageRoot = None,
    data_use: ImagesDataUse = None,
    grid: Grid = "24x24",
    geometry: Geometry = "pad",
    jpeg_scale: JpegScale = None,
    dtype: Dtype = "float32",
    profile: Profile = None,
    tolerance: Tolerance = None,
    batch_size: ImageBatchSize = None,
    threads: WorkerThreads = None,
    shard_rows: ShardRows = None,
    device: Device = None,
    workers: Workers = 1,
    decode_workers: DecodeWorkers = None,
    engine: Engine = "local",
    task: ShardTask = None,
    hash_key: HashKeyFile = None,
    limit: ImageLimit = None,
    title: Annotated[str | None, typer.Option("--title", help="Title of the store, for its card.")] = None,
    license: Annotated[
        str | None, typer.Option("--license", help="License of the images, such as CC-BY-4.0, for the store's card.")
    ] = None,
    resume: Resume = False,
    as_json: AsJson = False,
) -> None:
    """Run a teacher once on every image and write E_v and E_a to a store."""
    from ..pipeline.extraction.extract import CrewRequest, ExtractionRequest, run_extraction
    from ..pipeline.extraction.image_sources import ImageRequest

    request = ExtractionRequest(
        teacher=teacher_name,
        weights=weights,
        out=out,
        images=ImageRequest(
            manifest=manifest,
            images=images,
            root=root,
            data_use=data_use,
            limit=limit,
        ),
        crew=CrewRequest(device=device, engine=engine, workers=workers, decode_workers=decode_workers),
        grid=grid,
        geometry=geometry,
        jpeg_scale=jpeg_scale,
        dtype=dtype,
        profile=profile,
        tolerance=tolerance,
        batch_size=batch_size,
        threads=threads,
        shard_rows=shard_rows,
        title=title,
        license=license,
        hash_key=hash_key,
        resume=resume,
        task=task,
    )
    with progress_bars() as progress:
        report = run_extraction(request, progress)
        report.note_rest(progress)
    show_report("store", report, as_json)
    if report.report.root_sha256 is not None:
        show_next("extract", as_json=as_json, store=out)
    report.raise_for_failures()


@app.command(cls=Command)
def finish(store: StorePath, as_json: AsJson = False) -> None:
    """Finish a store that several `extract --task` runs wrote, once all shards are complete."""
    from ..pipeline.extraction.extract import finish_store

    show_report("store", finish_store(store), as_json)
    show_next("extract", as_json=as_json, store=store)


@app.command(cls=Command)
def preview(
    store: StoreLocation,
    images: ImagesFolder = None,
    manifest: ImagesManifest = None,
    root: ImageRoot = None,
    rows: Annotated[int, typer.Option("--rows", min=1, help="Read N random rows; those with an image first.")] = 200,
    patch: Annotated[
        str | None,
        typer.Option(
            "--patch",
            help="ROW,COLUMN of the cell whose similarity to all others is drawn, counted from 0,0 including padding; "
            "default: the cell with the most attention.",
        ),
    ] = None,
    seed: Seed = 0,
    hash_key: HashKeyFile = None,
    out: Annotated[Path | None, typer.Option("--out", help="New folder for report.html and its figures.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a store holds: rows that look odd, whether rows match their images, E_a and S over images."""
    from ..pipeline.extraction.image_sources import ImageRequest
    from ..pipeline.stores.preview.preview import preview_store
    from ..pipeline.stores.preview.preview_result import PreviewRequest

    has_images = not (images is None and manifest is None and root is None)
    request = PreviewRequest(
        location=store,
        images=ImageRequest(manifest=manifest, images=images, root=root) if has_images else None,
        rows=rows,
        seed=seed,
        patch=patch,
        hash_key=hash_key,
        out=out,
    )
    with progress_bars() as progress:
        report = preview_store(request, progress)
    show_report("preview", report, as_json, report.table)
    report.raise_for_broken()
    show_next("preview", as_json=as_json, store=store)
