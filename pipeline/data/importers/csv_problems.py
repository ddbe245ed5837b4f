"""Explain, with a line number, why a CSV file cannot be read; the parser's message has neither."""

import csv
import io
import re
from collections.abc import Iterator

_SHOWN = 40


def csv_problem(data: bytes, separator: str, reason: str) -> str | None:
    """What is wrong with a CSV file that the parser rejected with `reason`; `None` if unknown."""
    content = data.decode("utf-8-sig", errors="replace")
    first = content.partition("\n")[0].strip().strip('"')
    if first.casefold().startswith("sep="):
        return f"its first line, {first}, is an instruction to Excel: delete this line"
    checks = (_quotation_problem, _length_problem)
    ordered = reversed(checks) if reason.startswith("found more fields") else checks
    return next((problem for check in ordered if (problem := check(content, separator)) is not None), None)


def _quotation_problem(content: str, separator: str) -> str | None:
    number = _line_with_bad_quote(content, separator)
    if number is None:
        return None
    return (
        f"line {number} has a quotation mark inside a field, or an unclosed one "
        f'({_shown(content.splitlines()[number - 1])}): write such a field as "5"" tube"'
    )


def _length_problem(content: str, separator: str) -> str | None:
    first = content.partition("\n")[0].strip()
    lengths = _lengths(content, separator)
    _, header = next(lengths, (1, 0))
    longer = next((found for found in lengths if found[1] > header), None)
    if longer is None:
        return None
    if header == 1 or first.startswith("#"):
        return f"its first line, {_shown(first)}, is not the header: delete the lines above the header"
    return (
        f"line {longer[0]} has {longer[1]} fields, but the header has {header}; put quotation marks around a field "
        f"that contains {'a tab' if separator == chr(9) else separator}"
    )


def _lengths(content: str, separator: str) -> Iterator[tuple[int, int]]:
    """The first line of each row, and its number of fields."""
    reader = csv.reader(io.StringIO(content, newline=""), delimiter=separator)
    begins = 1
    try:
        for row in reader:
            yield begins, len(row)
            begins = reader.line_num + 1
    except csv.Error:  # a field of more than 128 KB
        return


def _line_with_bad_quote(content: str, separator: str) -> int | None:
    """The first line with a quotation mark in an unquoted field or after the closing one; else the unclosed one."""
    mark = re.escape(separator)
    bad = re.compile(rf'(?:^|{mark})(?:[^"{mark}]+"|"(?:[^"]|"")*"[^"{mark}])')
    opened = None
    for number, line in enumerate(content.splitlines(), start=1):
        rest = line
        if opened is not None:
            closing = re.match(r'(?:[^"]|"")*"(?!")', line)
            if closing is None:
                continue
            rest = f'""{line[closing.end() :]}'
        if bad.search(rest):
            return number
        opened = number if rest.count('"') % 2 else None
    return opened


def _shown(line: str) -> str:
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}..."
