"""Records that runs leave and read again (answers, logs, conditions) are validated where they are read.

A record may be half-written or edited by hand; pydantic checks types, ranges and unknown fields, and the message says
which file, which line, which value, and what to do. A leaf that every room may import.
"""

from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from .errors import InputError

Record = TypeVar("Record")

_SHOWN, _LONGEST = 3, 80


def parse_record(kind: TypeAdapter[Record], data: bytes | str, path: Path, part: str, then: str) -> Record:
    """The record that JSON holds.

    Args:
        kind: what it must be.
        data: the JSON.
        path: the file it is from.
        part: which part of the file, for example "line 3".
        then: what to do about a damaged one, a sentence without its full stop.

    Raises:
        InputError: it is no JSON, or no valid record.
    """
    try:
        return kind.validate_json(data)
    except ValidationError as error:
        raise _damaged(error, path, part, then) from error


def check_record(kind: TypeAdapter[Record], value: object, path: Path, part: str, then: str) -> Record:
    """The same for a value that was parsed already.

    Raises:
        InputError: it is no valid record.
    """
    try:
        return kind.validate_python(value)
    except ValidationError as error:
        raise _damaged(error, path, part, then) from error


def describe_problems(error: ValidationError) -> str:
    """The first few problems that pydantic found, each with the value found."""
    problems = error.errors(include_url=False, include_context=False)
    shown = [_problem(problem) for problem in problems[:_SHOWN]]
    more = [f"{len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
    return "; ".join([*shown, *more])


def _damaged(error: ValidationError, path: Path, part: str, then: str) -> InputError:
    return InputError(f"{path}: its {part} cannot be read: {describe_problems(error)}. {then}")


def _problem(problem: Any) -> str:
    field = _short(".".join(map(str, problem["loc"])))
    text = (
        problem["msg"] if problem["type"] == "missing" else f"{problem['msg']}, found {_short(repr(problem['input']))}"
    )
    return f"{field}: {text}" if field else text


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."
