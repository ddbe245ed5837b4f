"""The command line: parse, delegate, render. Importing this loads neither torch nor zarr.

Exit codes: 0 success; 1 a bug or another failure; 2 an invalid option or setting; 3 an invalid input, or an --out
that is in use; 4 a store that is unfinished, damaged or incompatible; 5 finished, but some inputs failed and are
listed; 130 interrupted.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from . import __version__
from .commands import (
    assets,
    attention,
    comparison,
    config,
    data,
    grounding,
    inspection,
    report,
    sharing,
    store,
    student,
    teacher,
)
from .commands.base.base_command import Command
from .commands.base.command_group import CommandGroup
from .commands.base.error_output import errors_printed, wants_json
from .commands.next_steps import show_next
from .commands.options import AsJson, Seed, progress_bars
from .plain_text import protect_streams

_WANTS_JSON: Final = "medalign.wants_json"
"""Key in a context's `meta`."""


class _ErrorBoundary(CommandGroup):
    """Turns errors that users can act on into one message and an exit code; prints no control characters."""

    def main(self, *arguments: Any, **options: Any) -> Any:
        protect_streams()
        return super().main(*arguments, **options)

    def make_context(self, info_name: str | None, args: Sequence[str], *arguments: Any, **options: Any) -> Any:
        as_json = wants_json(args)
        with errors_printed(as_json):
            context = super().make_context(info_name, list(args), *arguments, **options)
        context.meta[_WANTS_JSON] = as_json
        return context

    def invoke(self, ctx: Any) -> Any:
        with errors_printed(ctx.meta[_WANTS_JSON]):
            return super().invoke(ctx)


app = typer.Typer(
    cls=_ErrorBoundary,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: rich's markdown alone takes longer to import than everything else here
    help="Alignment distillation from medical CLIP teachers into medical vision-language students.",
)
app.add_typer(data.app, name="data")
app.add_typer(teacher.app, name="teacher")
store.app.add_typer(sharing.app)  # without a name: its commands are the group's own
app.add_typer(store.app, name="store")
student.app.add_typer(comparison.app)
student.app.add_typer(grounding.app)
student.app.add_typer(attention.app)
student.app.add_typer(inspection.app)
app.add_typer(student.app, name="student")
app.add_typer(assets.app, name="assets")
app.add_typer(config.app, name="config")
app.add_typer(report.app, name="report")
app.add_typer(comparison.studies)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"medalign {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Alignment distillation from medical CLIP teachers into medical vision-language students."""


@app.command(cls=Command)
def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for the results.")] = Path("medalign-demo"),
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Run both stages on synthetic images: extract, train three arms, evaluate, write a report."""
    from .pipeline.demo.demo import run_demo
    from .pipeline.demo.demo_page import try_demo_report
    from .pipeline.demo.demo_table import show_demo

    with progress_bars() as progress:
        report = run_demo(out, seed, progress)
        page = try_demo_report(report, progress)
    show_demo(report, page, as_json=as_json)
    show_next("demo", as_json=as_json)


@app.command(cls=Command)
def doctor(as_json: AsJson = False) -> None:
    """Report what this machine has, what is missing, and how to fix it."""
    from .pipeline.doctor.doctor import examine, show_doctor

    show_doctor(examine(), as_json=as_json)
