"""`tables.json`: the tables of a comparison as data, with what their reader has to know, for its report."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from pydantic import ConfigDict, TypeAdapter
from pydantic.dataclasses import dataclass

from ....choices import DataUse, Reading
from ....errors import InputError
from ....plain_text import as_typed
from ....saved_records import check_record
from ....student.file_errors import is_file, read_object
from ....teacher_cache.sharing.data_use_gate import strictest
from ...runs.answer_log import write_whole
from .cells import Plan
from .table_entries import Grid

TABLES_FILE: Final = "tables.json"
FORMAT: Final = "medalign-comparison-tables"
VERSION: Final = 1


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class ComparisonTables:
    """The tables of a comparison, and what its specification says about reading them."""

    title: str
    adapter: str
    """The adapter of the baseline."""
    decoding: str
    """The decoding of the baseline."""
    reading: Reading
    """The scores that the specification asks for first."""
    data_use: DataUse
    """Strictest data-use class of all questions."""
    preamble: tuple[str, ...]
    warnings: tuple[str, ...]
    tables: tuple[Grid, ...]


_TABLES: Final = TypeAdapter(ComparisonTables)


def write_comparison_tables(
    out: Path, plan: Plan, preamble: Sequence[str], warnings: Sequence[str], tables: Sequence[Grid]
) -> None:
    """Write the record.

    Raises:
        MedalignError: The file cannot be written.
    """
    record = ComparisonTables(
        title=plan.spec.title,
        adapter=plan.spec.baseline.adapter,
        decoding=plan.spec.baseline.decoding,
        reading=plan.spec.reading,
        data_use=strictest([asked.data_use for asked in plan.questions.values()]),
        preamble=tuple(preamble),
        warnings=tuple(warnings),
        tables=tuple(tables),
    )
    values = {"format": FORMAT, "version": VERSION, **asdict(record)}
    write_whole(out / TABLES_FILE, json.dumps(values, indent=1) + "\n")


def read_comparison_tables(out: Path) -> ComparisonTables:
    """Read the record of a finished comparison.

    Raises:
        InputError: There is none, because the comparison is unfinished or from an earlier version, or it is damaged.
    """
    path = out / TABLES_FILE
    then = f"write it with `medalign student compare SPEC.yaml --reanalyze --out {as_typed(out)}`"
    if not is_file(path):
        raise InputError(f"{out} has no {TABLES_FILE}: {then}")
    values = read_object(path)
    if values.pop("format", None) != FORMAT or values.pop("version", None) != VERSION:
        raise InputError(f"{path} is not {FORMAT} version {VERSION}: {then}")
    return check_record(_TABLES, values, path, "tables", then.capitalize())
