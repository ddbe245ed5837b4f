"""The result of `medalign study` on the terminal."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table

from ...plain_text import shown, signed_text
from ..terminal import print_json, print_line, print_table, show_page
from .run_study import StudyReport


def show_study(report: StudyReport, page: Mapping[str, str | None], *, as_json: bool) -> None:
    """Print the summary as one JSON object, or a table for each regime; `page` has the path of the report."""
    summary = {**report.summary(), **page}
    if as_json:
        print_json(summary)
        return
    for regime in summary["values"]:
        print_table(_table(summary, regime))
    for line in _sentences(summary):
        print_line(line)
    show_page(summary)


def _table(summary: Mapping[str, Any], regime: str) -> Table:
    part = "test" if summary["shown"] == "test" else "development"
    table = Table(title=shown(f"{regime}: {summary['metric']}, {part} questions"), title_justify="left")
    table.caption = "Intervals: 95 %, over seeds (training sets) and images, paired"
    table.caption_justify = "left"
    for column in ("arm", "mean", "difference"):
        table.add_column(column, justify="left" if column == "arm" else "right")
    differences = [row for row in summary["differences"] if row["regime"] == regime]
    for arm, value in summary["values"][regime].items():
        own = [row for row in differences if row["arm"] == arm]
        table.add_row(shown(arm), f"{value:.3f}", "\n".join(map(difference_text, own)) or "-")
    return table


def difference_text(row: Mapping[str, Any]) -> str:
    """A difference with its interval: `+0.041 [+0.017, +0.064] against LoRA`."""
    interval = "" if row["low"] is None else f" [{signed_text(row['low'], 3)}, {signed_text(row['high'], 3)}]"
    adjusted = "" if row["p_holm"] is None else f", p {row['p_holm']:.3g} after Holm"
    return shown(f"{signed_text(row['difference'], 3)}{interval} against {row['against']}{adjusted}")


def _sentences(summary: Mapping[str, Any]) -> Iterator[str]:
    for warning in summary["warnings"]:
        yield f"warning: {warning}"
    read = summary["test_read_at"]
    yield (
        f"{summary['units']} units of work, {summary['unit_hours']} hours; specification "
        f"{summary['spec_sha256'][:16]}; "
        + (f"the test questions were read on {read}" if read else "the test questions were not read")
    )
