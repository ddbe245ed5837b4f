"""Rows as CSV or JSON lines on stdout, for other programs; `terminal.py` prints tables and JSON objects."""

import csv
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..choices import OutputFormat
from ..plain_text import shown
from .terminal import as_json_text, unfiltered_stdout


@dataclass(frozen=True, slots=True)
class Rows:
    """A result that is a table."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]

    @classmethod
    def of(cls, records: Sequence[Mapping[str, Any]]) -> "Rows":
        """The rows of records, which all have the keys of the first one."""
        columns = list(records[0]) if records else []
        return cls(columns, [[record[name] for name in columns] for record in records])


def show_in_format(output_format: OutputFormat, rows: Callable[[], Rows], show: Callable[..., None]) -> None:
    """Print `rows()` as CSV or JSON lines, or call `show(as_json=...)`, which prints a table or one JSON object."""
    if output_format == "csv":
        print_csv(rows())
    elif output_format == "jsonl":
        print_json_lines(rows())
    else:
        show(as_json=output_format == "json")


def print_csv(rows: Rows) -> None:
    """Print a header, and one line per row: missing values and NaN are empty, lists are JSON, line breaks escaped."""
    writer = csv.writer(unfiltered_stdout(), lineterminator="\n")
    writer.writerows(map(_csv_cells, [rows.columns, *rows.rows]))


def print_json_lines(rows: Rows) -> None:
    """Print one JSON object per row, each in one line of ASCII; NaN and infinity become null."""
    for row in rows.rows:
        print(as_json_text(dict(zip(rows.columns, row, strict=True)), indent=None), file=unfiltered_stdout())


def _csv_cells(row: Iterable[Any]) -> list[Any]:
    return [_csv_cell(value) for value in row]


def _csv_cell(value: Any) -> Any:
    """A value for the csv module, which writes `None` as an empty cell and numbers with all digits."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return value
    if isinstance(value, Mapping | list | tuple):
        return shown(json.dumps(value, ensure_ascii=False, default=str))
    return shown(value.as_posix() if isinstance(value, Path) else str(value))
