"""Notes about the splits of a table: rows that have none, and an unread column whose values look like splits."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .....plain_text import as_typed
from ..common import DEFAULT_SPLIT, DRAW, ImportOptions
from ..records import text
from ..splits import SPLIT_NAMES
from .columns import USUAL_NAMES, TableColumns
from .table_files import TableFile


def split_columns(rows: Iterable[Mapping[str, Any]], names: Sequence[str]) -> list[str]:
    """The columns in which every value that is not blank is a common split name, in any case."""
    rows = list(rows)
    values = {
        name: {text(row.get(name)) for row in rows if not isinstance(row.get(name), list | dict)} for name in names
    }
    return [name for name in names if _are_splits(values[name] - {None})]


def split_notes(
    file: TableFile, rows: Sequence[tuple[str, object]], columns: TableColumns, options: ImportOptions
) -> list[str]:
    """Notes for a table whose rows get their split from elsewhere than a column; empty if nothing is unexpected."""
    if "split" in columns.roles:
        return []
    found = split_columns((row for _, row in rows if isinstance(row, dict)), columns.unused)
    given = options.split or options.drawn_split
    if given is not None:
        return [_unread(file, name, f"because of --split {given}: omit it and pass") for name in found[:1]]
    if file.split is not None:
        source = f"because the path says {file.split}: to use it, pass"
        return [_unread(file, name, source) for name in found[:1]]
    column = f"--column {as_typed(f'split={found[0]}')}, whose values look like splits" if found else DRAW
    return [
        f"{file.path.name} has no split column ({', '.join(USUAL_NAMES['split'])}), so all of its rows are in the "
        f"split {DEFAULT_SPLIT}; for others, pass {column}"
    ]


def _unread(file: TableFile, column: str, why: str) -> str:
    return (
        f"the column {column} of {file.path.name} looks like a split and is not used, {why} "
        f"--column {as_typed(f'split={column}')}"
    )


def _are_splits(values: set[str | None]) -> bool:
    return bool(values) and all(value is not None and value.casefold() in SPLIT_NAMES for value in values)
