"""`medalign student inspect`: look into a student before and after training."""

from pathlib import Path
from typing import Annotated

import typer

from .base.base_command import Command
from .next_steps import show_next
from .options import (
    Adapters,
    AsJson,
    BatchSize,
    Device,
    HashKeyFile,
    ImageRoot,
    InferenceDtype,
    ManifestFile,
    Seed,
    Split,
    StudentFolder,
    Template,
    progress_bars,
)

app = typer.Typer()


@app.command("inspect", cls=Command)
def inspect_students(
    student_folder: StudentFolder,
    manifest: ManifestFile,
    out: Annotated[
        Path, typer.Option("--out", help="New folder: report.html, inspection.json, Parquet tables and figures/.")
    ],
    adapter: Adapters = None,
    store: Annotated[
        str | None, typer.Option("--store", help="Teacher store that has the images: compare with E_v and E_a.")
    ] = None,
    hash_key: HashKeyFile = None,
    split: Split = "test",
    root: ImageRoot = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Images in the random sample.")] = 200,
    shown: Annotated[int, typer.Option("--shown", min=0, help="Questions with their own card in the report.")] = 50,
    max_new_tokens: Annotated[
        int, typer.Option("--max-new-tokens", min=1, help="Maximum length of an answer, in tokens.")
    ] = 64,
    batch_size: BatchSize = 8,
    template: Template = None,
    device: Device = None,
    dtype: InferenceDtype = "auto",
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Report what image tokens contain stage by stage, where students look and what they answer; writes report.html."""
    from ..pipeline.inspection.inspect_request import InspectRequest
    from ..pipeline.inspection.inspect_students import run_inspection
    from ..pipeline.inspection.inspection_table import show_inspection

    request = InspectRequest(
        student=student_folder,
        adapters=tuple(adapter or ()),
        manifest=manifest,
        root=root,
        store=store,
        hash_key=hash_key,
        split=split,
        limit=limit,
        shown=shown,
        template=template,
        device=device,
        dtype=dtype,
        batch_size=batch_size,
        max_new_tokens=max_new_tokens,
        seed=seed,
    )
    with progress_bars() as progress:
        report = run_inspection(request, out, progress)
    show_inspection(report, as_json=as_json)
    show_next("inspect", as_json=as_json, student=adapter[-1] if adapter else student_folder)
