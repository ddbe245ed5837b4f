"""Reading the files that data sets are released as: JSON, JSON lines, CSV; what cannot be read is one InputError."""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ...errors import InputError
from .common import refuse

Check = Callable[[dict[str, Any]], str | None]
"""What is wrong with a record, in one line; `None` for a good one."""


def text(value: object) -> str | None:
    """A field as text: numbers become text (an answer may be 4), outer blanks go, and what is left empty is `None`."""
    return None if value is None else str(value).strip() or None


def read_json(path: Path) -> Any:
    """A JSON file.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path} is not readable JSON: {error}") from error


def read_records(path: Path, check: Check) -> list[dict[str, Any]]:
    """The objects of a JSON list, or of JSON lines where the name ends in `.jsonl`; all are checked.

    Raises:
        InputError: it cannot be read, or records are malformed; all of them in one message.
    """
    records: Any = _read_lines(path) if path.suffix == ".jsonl" else read_json(path)
    if not isinstance(records, list):
        raise InputError(f"{path} holds a {type(records).__name__}, not a list of records")
    check_records(records, path, check)
    return records


def check_records(records: Sequence[object], path: Path, check: Check, what: str = "records") -> None:
    """Hold that every record is an object and passes `check`.

    Raises:
        InputError: some do not; all of them in one message.
    """
    problems = []
    for index, record in enumerate(records):
        problem = check(record) if isinstance(record, dict) else f"a {type(record).__name__}, not an object"
        if problem is not None:
            problems.append(f"record {index}: {problem}")
    refuse(problems, path, len(records), what)


def lacking(record: dict[str, Any], keys: Sequence[str]) -> str | None:
    """`no question, answer` for keys that a record lacks or has as null."""
    missing = [key for key in keys if record.get(key) is None]
    return f"no {', '.join(missing)}" if missing else None


def read_table(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a CSV file, plain or gzipped, that has at least these columns.

    Raises:
        InputError: it cannot be read, or columns are missing.
    """
    try:
        data = path.read_bytes()
        content = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode("utf-8-sig")
        rows = list(csv.DictReader(io.StringIO(content, newline="")))
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is not a readable CSV: {error}") from error
    missing = [column for column in columns if not rows or column not in rows[0]]
    if missing:
        raise InputError(f"{path} has no lines or lacks columns: {', '.join(missing)}")
    return rows


def _read_lines(path: Path) -> list[object]:
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as a JSON text: {error}") from error
    records: list[object] = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                records.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise InputError(f"{path}, line {number}: not JSON ({error.msg} at column {error.colno})") from error
    return records
