"""Errors as users see them: one message on stderr, with --json one object on stdout too, and an exit code."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import typer

from ...errors import InputError, MedalignError
from ...path_checks import is_path_error
from ...plain_text import SafeStream, message

UsageError: Any = typer.BadParameter.__mro__[1]
"""The class of all mistakes in options, of click or of typer's copy of it."""


class Interrupted(MedalignError):
    """The user stopped the command; the message says what was kept and how to continue."""

    exit_code = 130


def wants_json(words: Sequence[str]) -> bool:
    """Whether a command line asks for one JSON object; its options need not be correct."""
    options = words[: words.index("--")] if "--" in words else words
    return "--json" in options or "--format=json" in options or ("--format", "json") in pairwise(options)


@contextmanager
def errors_printed(as_json: bool) -> Iterator[None]:
    """Print an error that ends the block. With `as_json` also as an object, unless there is a report on stdout already.

    Raises:
        typer.Exit: An error that users can act on, with its exit code.
    """
    before = _outputs()
    try:
        yield
    except (typer.Exit, typer.Abort, BrokenPipeError):
        raise
    except Exception as error:
        code, text = _described(error)
        if as_json and _outputs() == before:
            _print_object(text, code)
        if not isinstance(error, MedalignError | OSError) or (isinstance(error, OSError) and error.strerror is None):
            raise  # click prints mistakes in options, Python the traceback of a bug
        print(message(text) if isinstance(error, Interrupted) else f"error: {message(text)}", file=sys.stderr)
        raise typer.Exit(code) from error


def _described(error: Exception) -> tuple[int, str]:
    """The exit code and the message of an error."""
    if isinstance(error, MedalignError):
        return error.exit_code, str(error)
    if isinstance(error, UsageError):
        return error.exit_code, error.format_message()
    if isinstance(error, OSError) and error.strerror is not None:
        where = "" if error.filename is None else f"{error.filename}: "
        return InputError.exit_code if is_path_error(error) else 1, f"{where}{error.strerror}"
    return 1, f"{type(error).__name__}: {error}"


def _outputs() -> int:
    return sys.stdout.outputs if isinstance(sys.stdout, SafeStream) else 0


def _print_object(text: str, code: int) -> None:
    from ...pipeline.devices import is_first_process
    from ...pipeline.terminal import print_json

    if is_first_process():
        print_json({"error": text, "exit_code": code})
