"""`medalign data`: manifests and test images."""

from pathlib import Path
from typing import Annotated

import typer

from ..choices import DataUse
from .base.base_command import Command
from .base.command_group import CommandGroup
from .next_steps import show_next
from .options import AsJson, ImageRoot, NamedOut, Out, Seed, progress_bars, show_report

KINDS = (
    "vqa-rad, slake, pathvqa, omnimedvqa, iu-xray, mimic-cxr, medheval, llava-json, table (your own CSV, Parquet or "
    "JSON), folder or nih-cxr."
)

app = typer.Typer(cls=CommandGroup, no_args_is_help=True, help="Manifests: the images and questions of a run.")


@app.command("import", cls=Command)
def import_data(
    kind: Annotated[str, typer.Argument(help=KINDS)],
    source: Annotated[Path, typer.Argument(help="Folder or file of the data set.")],
    out: NamedOut,
    split: Annotated[
        str | None,
        typer.Option("--split", help="Split for all questions, or fractions to split by image: train=0.8,test=0.2."),
    ] = None,
    data_use: Annotated[
        DataUse | None, typer.Option("--data-use", help="Data-use class; default: that of the data set.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option("--images", help="Folder of the images; default: inside the source.")
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option("--seed", min=0, help="Seed for random splits and nih-cxr questions; default: 0."),
    ] = None,
    language: Annotated[
        str | None, typer.Option("--language", help="Language of slake's questions: en, zh or all; default: en.")
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option("--column", help="Column of a table, as ROLE=NAME: question=Q, image=File. Repeatable."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Convert a data set to a manifest."""
    from ..pipeline.data.import_manifest import import_manifest

    with progress_bars() as progress:
        report = import_manifest(
            kind,
            source,
            out,
            split=split,
            data_use=data_use,
            images=images,
            seed=seed,
            language=language,
            columns=column or (),
            progress=progress,
        )
    show_report("manifest", report, as_json)
    show_next("import", as_json=as_json, manifest=out)
    report.raise_for_unreadable()


@app.command("check", cls=Command)
def check_data(
    manifest: Annotated[Path, typer.Argument(help="Manifest (see `medalign data import`).")],
    root: ImageRoot = None,
    hashes: Annotated[
        bool,
        typer.Option("--hashes", help="Also compare every image and mask file with the hashes in the manifest."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Report overlap between splits, missing or renamed files, and repeated or unanswered questions."""
    from ..pipeline.data.data_check import check_manifest

    with progress_bars() as progress:
        report = check_manifest(manifest, root, progress, hashes=hashes)
        for sentence in report.sentences():
            progress.note(sentence)
    show_report("check", report, as_json, report.table)
    report.raise_for_files()


@app.command("phantom", cls=Command)
def draw_phantoms(
    out: Out,
    images: Annotated[int, typer.Option("--images", min=1, help="Number of images.")] = 200,
    shift: Annotated[
        float,
        typer.Option(
            "--shift", min=0.0, max=1.0, help="How much the images look like a second scanner's: 0 not at all, 1 fully."
        ),
    ] = 0.0,
    anchors: Annotated[
        int,
        typer.Option("--anchors", min=0, help="Number of additional images, without a shift, in the split `anchors`."),
    ] = 0,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Generate test images with organs and lesions, and their masks, questions and reports."""
    from ..pipeline.data.phantoms.phantom_dataset import make_phantoms

    with progress_bars() as progress:
        report = make_phantoms(out, images, seed, progress, shift=shift, anchors=anchors)
    show_report("phantoms", report, as_json)
    show_next("import", as_json=as_json, manifest=report.path)


@app.command("make-key", cls=Command)
def make_hash_key(
    file: Annotated[Path, typer.Argument(help="New file for the key; only you can read it.")],
    as_json: AsJson = False,
) -> None:
    """Generate a secret key for keyed image hashes, for stores of private data."""
    from ..pipeline.data.make_key import make_key_file

    show_report("key", make_key_file(file), as_json)
