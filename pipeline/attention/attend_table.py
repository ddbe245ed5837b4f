"""The result of `medalign student attend` on the terminal."""

from ..reports.page import REPORT_FILE, Table
from ..terminal import print_json, print_line, show_rows
from .attend_changes import change_sentences
from .attend_page import PICTURE, cells_table, lead, shares_tables
from .attend_report import AttendReport

_CELLS = 3


def show_attention(report: AttendReport, *, as_json: bool) -> None:
    """Print the summary as one JSON object, or shares by layer and the most attended cells."""
    if as_json:
        print_json(report.summary())
        return
    for table in shares_tables(report):
        _show(table)
    _show(cells_table(report, _CELLS))
    print_line(lead(report))
    for sentence in change_sentences(report):
        print_line(sentence)
    print_line(f"The picture is {report.out / PICTURE}, the page {report.out / REPORT_FILE}")


def _show(table: Table) -> None:
    show_rows(table.caption, table.columns, table.rows, as_json=False)
