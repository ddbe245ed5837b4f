"""The commands of `medalign teacher` that work on a store as it lies there."""

from typing import Annotated

import typer

from .interrupt import Command
from .options import AsJson, StoreLocation, progress_bars, show_report

app = typer.Typer()


@app.command(cls=Command)
def info(store: StoreLocation, as_json: AsJson = False) -> None:
    """Whose targets a store holds, of how many images, in which form."""
    from ..pipeline.integrity import describe_store

    show_report("store", describe_store(store), as_json)


@app.command(cls=Command)
def verify(
    store: StoreLocation,
    quick: Annotated[bool, typer.Option("--quick", help="Sizes and ledger alone; shard files are not read.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check every byte of a store against its ledger; needs no images and no teacher."""
    from ..pipeline.integrity import verify_store

    with progress_bars() as progress:
        report = verify_store(store, progress, quick=quick)
    show_report("verification", report, as_json)
    report.raise_for_problems()
