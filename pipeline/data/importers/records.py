"""Read JSON, JSON Lines and CSV files; all problems of a file are in one InputError."""

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

import polars as pl
from polars.exceptions import PanicException, PolarsError

from ....errors import InputError
from ....plain_text import counted, kind_of
from .common import refuse, shortened
from .csv_problems import csv_problem
from .json_faults import ObjectHook, RecordFault, find_fault

Check = Callable[[dict[str, Any]], str | None]
"""Returns what is wrong with a record, in one line; `None` for a valid one."""

_GZIP = b"\x1f\x8b"
_LONE_RETURN = re.compile(rb"\r(?!\r*\n)")

Record = TypeVar("Record", bound=Mapping[str, Any])


def text(value: object) -> str | None:
    """A field as stripped text; numbers become text (an answer may be 4).

    Empty, null and NaN values (pandas writes NaN for a missing value) are `None`. The word "nan" is text.
    """
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return str(value).strip() or None


def read_json(path: Path) -> Any:
    """Read a JSON file; NaN and infinities, which JSON does not allow, become null.

    Raises:
        InputError: The file cannot be read, repeats a key with another value, or has unpaired surrogates.
    """
    value, suspect = _parse_whole(path, read_text(path))
    if suspect and isinstance(value, list):
        found = [(index, fault) for index, record in enumerate(value) if (fault := find_fault(record)) is not None]
        refuse([f"record {index}: {fault}" for index, fault in found], path, len(value), "records")
    elif suspect and (fault := find_fault(value)) is not None:
        raise InputError(f"{path}: {fault}")
    return value


def read_text(path: Path) -> str:
    """Read a UTF-8 file, with or without a byte order mark.

    Raises:
        InputError: The file cannot be read.
    """
    if path.is_dir():
        files = sorted(file.name for file in path.glob("[!.]*.json*"))
        raise InputError(f"{path} is a folder; pass one file, such as {', '.join(files[:5]) or 'FILE.json'}")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


def read_objects(path: Path) -> list[tuple[str, object]]:
    """The records of a JSON list, of JSON Lines, or of a file with one JSON object, each with its position.

    A line that is not JSON is returned as its `JSONDecodeError`, a record with another fault as a `RecordFault`. Only a
    line feed ends a line: text may contain U+2028.

    Raises:
        InputError: The file cannot be read.
    """
    content = read_text(path)
    lines = [(f"line {number}", line) for number, line in enumerate(content.split("\n"), start=1) if line.strip()]
    if path.suffix.lower() == ".jsonl" or (len(lines) > 1 and isinstance(_parse_line(lines[0][1]), dict | RecordFault)):
        return [(place, _parse_line(line)) for place, line in lines]
    whole, suspect = _parse_whole(path, content)
    records = whole if isinstance(whole, list) else [whole]
    if suspect:
        records = [record if (fault := find_fault(record)) is None else RecordFault(fault) for record in records]
    return [(f"record {index}", record) for index, record in enumerate(records)]


def read_records(path: Path, check: Check) -> list[dict[str, Any]]:
    """The objects of a JSON list, or of JSON Lines if the name ends in `.jsonl`; all are checked.

    Raises:
        InputError: The file cannot be read, or records are malformed; one message lists all.
    """
    if path.suffix != ".jsonl":
        records = read_json(path)
        if not isinstance(records, list):
            raise InputError(f"{path} contains {kind_of(records)}, not a list of records")
        check_records(records, path, check)
        return records
    placed = read_objects(path)
    problems = [f"{place}: {problem}" for place, record in placed if (problem := _problem(record, check)) is not None]
    refuse(problems, path, len(placed), "records")
    return [record for _, record in placed if isinstance(record, dict)]


def check_records(records: Sequence[object], path: Path, check: Check, what: str = "records") -> None:
    """Check that every record is an object and passes `check`.

    Raises:
        InputError: Some do not; one message lists all.
    """
    problems = [
        f"record {index}: {problem}"
        for index, record in enumerate(records)
        if (problem := _problem(record, check)) is not None
    ]
    refuse(problems, path, len(records), what)


def _problem(record: object, check: Check) -> str | None:
    return check(record) if isinstance(record, dict) else no_record(record)


def no_record(record: object) -> str:
    """Why an item from `read_objects` is not an object."""
    if isinstance(record, json.JSONDecodeError):
        return f"not JSON ({record.msg} at column {record.colno})"
    if isinstance(record, RecordFault):
        return str(record)
    return f"{kind_of(record)}, not an object"


def lacking(record: Mapping[str, Any], keys: Sequence[str], nullable: Sequence[str] = ()) -> str | None:
    """`no question, answer` for keys that are missing or null in a record; keys in `nullable` may be null."""
    missing = [key for key in keys if record.get(key) is None and not (key in nullable and key in record)]
    return f"no {', '.join(missing)}" if missing else None


def read_table(path: Path, columns: Sequence[str] = (), separator: str = ",") -> list[dict[str, str | None]]:
    """The rows of a CSV file, plain or gzipped, with at least these columns; an empty field is `None`.

    Raises:
        InputError: The file cannot be read, columns are missing, or two columns have the same name.
    """
    frame = _read_csv(path, separator, has_header=False)
    names = [text(name) or "" for name in frame.row(0)]
    repeated = [name for name, count in Counter(names).items() if count > 1 and name]
    if repeated:
        raise InputError(f"{path} has several columns with the same name: {', '.join(repeated)}; rename them")
    missing = [column for column in columns if column not in names]
    if missing or (columns and frame.height == 1):
        raise InputError(f"{path} is empty or has missing columns: {', '.join(missing or columns)}")
    kept = [index for index, name in enumerate(names) if name]
    return [{names[index]: row[index] for index in kept} for row in frame.slice(1).iter_rows()]


def read_rows(path: Path, columns: int) -> list[tuple[str | None, ...]]:
    """The first `columns` fields of every line below the header of a CSV file, for tables with unnamed columns.

    Raises:
        InputError: The file cannot be read.
    """
    frame = _read_csv(path, ",", has_header=False, skip_rows=1, truncate_ragged_lines=True)
    padding = (None,) * columns
    return [(*row, *padding)[:columns] for row in frame.iter_rows()]


def _read_csv(path: Path, separator: str, **options: Any) -> pl.DataFrame:
    data = b""
    try:
        data = _with_line_feeds(path.read_bytes())
        return pl.read_csv(BytesIO(data), separator=separator, infer_schema=False, **options)
    except (OSError, PolarsError, PanicException) as error:
        reason = str(error).strip().splitlines()[0]
        known = None if data.startswith(_GZIP) else csv_problem(data, separator, reason)
        reason = known or reason
        raise InputError(f"{path} cannot be read as CSV: {reason}") from error


def _with_line_feeds(data: bytes) -> bytes:
    """Convert carriage returns as line ends (Excel's "CSV (Macintosh)") to line feeds, for polars."""
    first = re.search(rb"[\r\n]", data)
    if first is None or data.startswith(_GZIP) or not _LONE_RETURN.match(data, first.start()):
        return data
    return _LONE_RETURN.sub(b"\n", data)


def keyed(records: Iterable[Record], key: str, path: Path) -> dict[str, Record]:
    """Records by a field that is unique.

    Raises:
        InputError: Some records share a value, so it is ambiguous which one counts.
    """
    by_key: dict[str, Record] = {}
    repeated = []
    for record in records:
        value = str(record[key])
        if value in by_key:
            repeated.append(value)
        by_key[value] = record
    if repeated:
        subject = counted(len(repeated), "line repeats", "lines repeat")
        raise InputError(f"{path}: {subject} the {key} of an earlier one; {shortened(repeated)}")
    return by_key


def _parse_whole(path: Path, content: str) -> tuple[Any, bool]:
    try:
        return _parse(content)
    except json.JSONDecodeError as error:
        raise InputError(f"{path} cannot be read as JSON: {error}") from error


def _parse(content: str) -> tuple[Any, bool]:
    """A JSON value, and whether it may have a fault; values too large for Python are ordinary JSON errors."""
    hook = ObjectHook()
    try:
        value = json.loads(content, parse_constant=lambda _: None, object_pairs_hook=hook)
        return value, hook.suspects(content)
    except RecursionError as error:
        raise json.JSONDecodeError("lists and objects are nested too deeply", content, 0) from error
    except json.JSONDecodeError:
        raise
    except ValueError as error:
        raise json.JSONDecodeError("an integer has too many digits", content, 0) from error


def _parse_line(line: str) -> object:
    try:
        record, suspect = _parse(line)
    except json.JSONDecodeError as error:
        return error
    fault = find_fault(record) if suspect else None
    return record if fault is None else RecordFault(fault)
