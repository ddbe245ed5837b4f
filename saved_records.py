"""Validation of the records that runs save and read again (answers, logs, conditions).

A record may be truncated or edited by hand. Pydantic checks types, ranges and unknown fields, and the message gives
the file, the line, the value, and what to do. Every package may import this module.
"""

from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from .errors import InputError

Record = TypeVar("Record")

_SHOWN, _LONGEST = 3, 80


def parse_record(kind: TypeAdapter[Record], data: bytes | str, path: Path, part: str, then: str) -> Record:
    """Parse a record from JSON.

    Args:
        kind: Type of the record.
        data: The JSON.
        path: The file that it was read from.
        part: The part of the file, for example "line 3".
        then: What to do about a damaged record, as a sentence without a period.

    Raises:
        InputError: The data is not JSON, or not a valid record.
    """
    try:
        return kind.validate_json(data)
    except ValidationError as error:
        raise _damaged(error, path, part, then) from error


def check_record(kind: TypeAdapter[Record], value: object, path: Path, part: str, then: str) -> Record:
    """Validate a value that was already parsed.

    Raises:
        InputError: It is not a valid record.
    """
    try:
        return kind.validate_python(value)
    except ValidationError as error:
        raise _damaged(error, path, part, then) from error


def describe_problems(error: ValidationError) -> str:
    """The first few problems that pydantic reports, each with the invalid value."""
    problems = error.errors(include_url=False, include_context=False)
    shown = [_problem(problem) for problem in problems[:_SHOWN]]
    more = [f"{len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
    return "; ".join([*shown, *more])


def _damaged(error: ValidationError, path: Path, part: str, then: str) -> InputError:
    return InputError(f"{path}: invalid {part}: {describe_problems(error)}. {then}")


def _problem(problem: Any) -> str:
    field = _short(".".join(map(str, problem["loc"])))
    text = (
        problem["msg"] if problem["type"] == "missing" else f"{problem['msg']}, found {_short(repr(problem['input']))}"
    )
    return f"{field}: {text}" if field else text


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."
