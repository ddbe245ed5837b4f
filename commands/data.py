"""`medalign data`: manifests and test images."""

from pathlib import Path
from typing import Annotated

import typer

from .interrupt import Command
from .options import AsJson, DataUse, ImageRoot, NamedOut, Out, Seed, progress_bars, show_report

KINDS = (
    "vqa-rad, slake, pathvqa, omnimedvqa, iu-xray, mimic-cxr, medheval, llava-json, table (your own CSV, Parquet or "
    "JSON), folder or nih-cxr."
)

app = typer.Typer(no_args_is_help=True, help="Manifests: which images and questions a run is about.")


@app.command("import", cls=Command)
def import_data(
    kind: Annotated[str, typer.Argument(help=KINDS)],
    source: Annotated[Path, typer.Argument(help="The data set's folder or file.")],
    out: NamedOut,
    split: Annotated[
        str | None,
        typer.Option("--split", help="Split of all questions; or shares to draw by image, as train=0.8,test=0.2."),
    ] = None,
    data_use: Annotated[
        DataUse | None, typer.Option("--data-use", help="Data-use class; default: what is known of the source.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option("--images", help="Folder of the images, where it is not the source's own.")
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option("--seed", min=0, help="Seed of what is drawn: nih-cxr's questions, splits; default: 0."),
    ] = None,
    language: Annotated[
        str | None, typer.Option("--language", help="Of slake's questions: en, zh or all; default: en.")
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option("--column", help="Of a table: ROLE=NAME, such as question=Q or image=File. Repeatable."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Turn a data set into a manifest."""
    from ..pipeline.data.import_manifest import import_manifest

    with progress_bars() as progress:
        report = import_manifest(
            kind,
            source,
            out,
            split=split,
            data_use=data_use.value if data_use else None,
            images=images,
            seed=seed,
            language=language,
            columns=column or (),
            progress=progress,
        )
    show_report("manifest", report, as_json)
    report.raise_for_unreadable()


@app.command("check", cls=Command)
def check_data(
    manifest: Annotated[Path, typer.Argument(help="Manifest (see `medalign data import`).")],
    root: ImageRoot = None,
    hashes: Annotated[
        bool,
        typer.Option("--hashes", help="Also compare every image and mask file with the manifest's hashes."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Report what splits share, missing or renamed files, and questions that repeat or have no answer."""
    from ..pipeline.data.data_check import check_manifest

    with progress_bars() as progress:
        report = check_manifest(manifest, root, progress, hashes=hashes)
        for sentence in report.sentences():
            progress.note(sentence)
    show_report("check", report, as_json)
    report.raise_for_files()


@app.command("phantom", cls=Command)
def draw_phantoms(
    out: Out,
    images: Annotated[int, typer.Option("--images", min=1, help="How many to draw.")] = 200,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Draw test images with organs and lesions, their masks, questions and reports."""
    from ..pipeline.data.phantoms.phantom_dataset import make_phantoms

    with progress_bars() as progress:
        report = make_phantoms(out, images, seed, progress)
    show_report("phantoms", report, as_json)


@app.command("make-key", cls=Command)
def make_hash_key(
    file: Annotated[Path, typer.Argument(help="New file for the key; only its owner can read it.")],
    as_json: AsJson = False,
) -> None:
    """Draw a secret key for keyed image hashes, for stores of private data."""
    from ..pipeline.data.make_key import make_key_file

    show_report("key", make_key_file(file), as_json)
