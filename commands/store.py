"""The commands of `medalign teacher` that work on a store as it lies there."""

import typer

from .interrupt import Command
from .options import AsJson, StorePath, progress_bars, show_report

app = typer.Typer()


@app.command(cls=Command)
def info(store: StorePath, as_json: AsJson = False) -> None:
    """Whose targets a store holds, of how many images, in which form."""
    from ..pipeline.extraction import describe_store

    show_report("store", describe_store(store), as_json)


@app.command(cls=Command)
def verify(store: StorePath, as_json: AsJson = False) -> None:
    """Check every byte of a store against its ledger; needs no images and no teacher."""
    from ..pipeline.extraction import verify_store

    with progress_bars() as progress:
        report = verify_store(store, progress)
    show_report("verification", report, as_json)
    report.raise_for_problems()
