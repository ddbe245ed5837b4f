"""The commands of `medalign store` that share, split and merge stores."""

from pathlib import Path
from typing import Annotated

import typer

from ..choices import DataUse
from .base.base_command import Command
from .next_steps import show_next
from .options import AsJson, HashKeyFile, NamedOut, StoreLocation, StorePath, progress_bars, show_report

app = typer.Typer()

AllowDataUse = Annotated[
    DataUse | None,
    typer.Option(
        "--allow-data-use",
        help="Allow sharing a store of exactly this class; public needs no permission (docs/sharing.md).",
    ),
]
ImagesOf = Annotated[Path | None, typer.Option("--manifest", help="Select the images in this manifest.")]
Hashes = Annotated[
    Path | None, typer.Option("--hashes", help="Select the images whose SHA-256 is in this text file, one per line.")
]


@app.command(cls=Command)
def subset(
    store: StoreLocation,
    out: NamedOut,
    manifest: ImagesOf = None,
    hashes: Hashes = None,
    hash_key: HashKeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Copy some images of a store to a new store."""
    from ..pipeline.stores.share import Selection, subset_store

    selection = Selection(manifest=manifest, hashes=hashes, hash_key=hash_key)
    with progress_bars() as progress:
        report = subset_store(store, out, selection, progress)
    show_report("subset", report, as_json)
    show_next("look", as_json=as_json, store=out)


@app.command(cls=Command)
def merge(
    stores: Annotated[list[str], typer.Argument(help="Two or more stores: folders or URLs.")],
    out: NamedOut,
    as_json: AsJson = False,
) -> None:
    """Merge stores with the same teacher and settings, without computing anything again."""
    from ..pipeline.stores.share import merge_stores

    with progress_bars() as progress:
        report = merge_stores(stores, out, progress)
    show_report("merge", report, as_json)
    show_next("look", as_json=as_json, store=out)


@app.command(cls=Command)
def pack(store: StorePath, out: NamedOut, allow: AllowDataUse = None, as_json: AsJson = False) -> None:
    """Pack a store into one file for transfer."""
    from ..pipeline.stores.share import pack_store

    with progress_bars() as progress:
        report = pack_store(store, out, allow, progress)
    show_report("packed store", report, as_json)
    show_next("pack", as_json=as_json)


@app.command(cls=Command)
def unpack(
    file: Annotated[Path, typer.Argument(help="File from `medalign store pack`.")],
    out: NamedOut,
    as_json: AsJson = False,
) -> None:
    """Unpack a store from a packed file, and compare each file in it with its SHA-256."""
    from ..pipeline.stores.share import unpack_store

    with progress_bars() as progress:
        report = unpack_store(file, out, progress)
    show_report("store", report, as_json)
    show_next("receive", as_json=as_json, store=out)


@app.command(cls=Command)
def push(
    store: StorePath,
    destination: Annotated[str, typer.Argument(help="s3://, gs:// or hf:// URL, or a folder.")],
    allow: AllowDataUse = None,
    as_json: AsJson = False,
) -> None:
    """Upload a store; run the command again to continue an interrupted upload."""
    from ..pipeline.stores.share import push_store

    with progress_bars() as progress:
        report = push_store(store, destination, allow, progress)
    show_report("push", report, as_json)
    show_next("push", as_json=as_json)


@app.command(cls=Command)
def pull(
    source: Annotated[str, typer.Argument(help="s3://, gs://, hf:// or http(s):// URL, or a folder.")],
    out: NamedOut,
    manifest: ImagesOf = None,
    hashes: Hashes = None,
    hash_key: HashKeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Download a store, or the rows of some images; run the command again to continue an interrupted download."""
    from ..pipeline.stores.share import Selection, pull_store

    some = manifest is not None or hashes is not None
    selection = Selection(manifest=manifest, hashes=hashes, hash_key=hash_key) if some else None
    with progress_bars() as progress:
        report = pull_store(source, out, selection, progress)
    show_report("pull", report, as_json)
    show_next("receive part" if some else "receive", as_json=as_json, store=out)
