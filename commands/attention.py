"""`medalign student attend`: where a student looks in an image."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from ..plain_text import message
from .base.base_command import Command
from .next_steps import show_next
from .options import (
    Adapters,
    AsJson,
    Device,
    HashKeyFile,
    InferenceDtype,
    StudentFolder,
    Template,
    progress_bars,
)

app = typer.Typer()


@app.command(cls=Command)
def attend(
    student_folder: StudentFolder,
    image: Annotated[list[Path], typer.Option("--image", help="Image file. Repeatable.")],
    question: Annotated[str, typer.Option("--question", help="The question.")],
    out: Annotated[
        Path, typer.Option("--out", help="New folder: attention.png, report.html, attend.json and figures/.")
    ],
    adapter: Adapters = None,
    layers: Annotated[
        str | None, typer.Option("--layers", help="Zero-based decoder layers, such as 3,7; default: all.")
    ] = None,
    store: Annotated[
        str | None, typer.Option("--store", help="Teacher store that has the images: draw E_a beside the student.")
    ] = None,
    hash_key: HashKeyFile = None,
    template: Template = None,
    device: Device = None,
    dtype: InferenceDtype = "auto",
    as_json: AsJson = False,
) -> None:
    """Draw where a student looks in images when it reads a question; with adapters, before and after training."""
    from ..pipeline.attention.attend import AttendRequest, run_attend
    from ..pipeline.attention.attend_table import show_attention

    request = AttendRequest(
        student=student_folder,
        adapters=tuple(adapter or ()),
        images=tuple(image),
        question=question,
        layers=layers,
        store=store,
        hash_key=hash_key,
        template=template,
        device=device,
        dtype=dtype,
    )
    with progress_bars() as progress:
        report = run_attend(request, out, progress)
    for line in report.warnings:
        print(f"warning: {message(line)}", file=sys.stderr)
    show_attention(report, as_json=as_json)
    show_next("attend", as_json=as_json, student=adapter[-1] if adapter else student_folder)
