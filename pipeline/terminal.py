"""Terminal output with rich: progress bars and notes on stderr, summaries and tables on stdout.

Everything that rich prints goes through a `console`, which escapes control characters and never interprets text as
markup.
"""

import getpass
import json
import math
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.measure import Measurement
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.segment import Segment
from rich.table import Table

from ..plain_text import (
    SafeStream,
    message,
    protect_streams,
    shown,
    size_text,
    visible,
    with_terms_joined,
    without_secrets,
)

_WIDEST = 100_000
_LISTED = 20
"""Items of a list that a summary shows."""
_GAP = "\ue000"
"""Stands for a space at which a line must not be wrapped; a private character, printed as a space."""
_SPACE = re.compile(r"(?<!E)_|_(?![av](?![a-z]))")
"""An underscore in a name, except that of E_v and E_a."""
_COMMAND = re.compile(r"`[^`]+`|(?:pip install|medalign) \S+(?: \S+)*")


class _PlainConsole(Console):
    """A console that escapes control characters: only rich itself moves the cursor or sets colors."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            text = visible(segment.text, lines=True).replace(_GAP, " ")
            yield segment if segment.control else Segment(text, segment.style)


def console(*, stderr: bool = False, soft_wrap: bool = False, width: int | None = None) -> Console:
    """The console for results, or with `stderr` for notes and bars."""
    stream = sys.stderr if stderr else sys.stdout
    file = stream.unfiltered if isinstance(stream, SafeStream) else None
    return _PlainConsole(file=file, stderr=stderr, soft_wrap=soft_wrap, width=width, markup=False, emoji=False)


class Bars:
    """`medalign.progress.Progress` on the terminal; one bar per stage, and finished bars stay."""

    def __init__(self, output: Console | None = None) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=output or console(stderr=True),
        )
        self._task: TaskID | None = None
        self._is_started = False

    def __enter__(self) -> "Bars":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._is_started:
            self._progress.stop()

    def start(self, label: str, total: int | None) -> None:
        if self._task is not None:
            self._progress.stop_task(self._task)
            self._task = None
        if total == 0:  # nothing to do
            return
        if not self._is_started:
            self._is_started = True
            self._progress.start()
            protect_streams()  # rich has replaced the streams and would pass escape sequences through
        self._task = self._progress.add_task(shown(label), total=total)

    def advance(self, steps: int = 1) -> None:
        if self._task is not None:
            self._progress.advance(self._task, steps)

    def note(self, text: str) -> None:
        self._progress.console.print(message(text), highlight=False, soft_wrap=True)


def ask_secret(prompt: str) -> str | None:
    """Ask for a passphrase on the terminal; `None` if there is no terminal."""
    return getpass.getpass(f"{prompt}: ") if sys.stdin.isatty() else None


def show_summary(title: str, values: Mapping[str, Any], *, as_json: bool) -> None:
    """Print a report: one JSON object, or a two-column table with its values, its lists, and one level of mappings."""
    if as_json:
        print_json(values)
        return
    table = Table(title=shown(title), title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    for name, value in values.items():
        if isinstance(value, Mapping):
            for inner, leaf in value.items():
                if not isinstance(leaf, Mapping):
                    _add_value(table, f"{name}: {inner}", leaf)
        else:
            _add_value(table, name, value)
    print_table(table, whole=True)


def _add_value(table: Table, name: str, value: Any) -> None:
    label, *lines = _words(name), *_lines(value, _unit(name))
    for line in lines:
        table.add_row(label, line)
        label = ""


def _lines(value: Any, unit: str) -> Iterator[str]:
    """A value as text; a list of numbers in one line, and any other list with one line for each of its first items."""
    if not isinstance(value, list | tuple):
        yield _measure(value, unit)
    elif not value or all(isinstance(item, int | float) for item in value):
        yield ", ".join(_text(item) for item in value) or "none"
    else:
        yield from (_item(item) for item in value[:_LISTED])
        if len(value) > _LISTED:
            yield f"and {len(value) - _LISTED:,} more (--json prints all)"


def _item(value: Any) -> str:
    if not isinstance(value, Mapping):
        return _text(value)
    return "; ".join(f"{_words(str(name))}: {_text(inner)}" for name, inner in value.items())


def show_rows(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, as_json: bool) -> None:
    """Print rows under a header, with numbers aligned right; or one JSON object: the title with a list of objects."""
    if as_json:
        print_json({title: [dict(zip(columns, row, strict=True)) for row in rows]})
        return
    table = Table(title=shown(title), title_justify="left")
    for index, column in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[index], int | float) or row[index] is None for row in rows)
        table.add_column(shown(column), justify="right" if numeric else "left")
    for row in rows:
        table.add_row(*(_unbroken(value) for value in row))
    print_table(table)


def print_table(table: Table, *, whole: bool = False) -> None:
    """Print a table in which no word, path or command is cut or wrapped.

    On a terminal, cells wrap between words, and a table whose longest words need more room is wider than the terminal.
    With `whole`, and in a pipe, each row is one line, so that it can be copied and searched. No line ends with spaces.
    """
    if isinstance(table.caption, str):
        table.caption = with_terms_joined(table.caption, _GAP)
    output = console(soft_wrap=True)
    wide = console(width=_WIDEST)
    needed = Measurement.get(wide, wide.options, table).maximum
    if not whole and output.is_terminal and needed > output.width:
        for column in table.columns:
            words = (word for text in (column.header, *column.cells) for word in str(text).split())
            column.min_width = max(map(cell_len, words), default=1)
        needed = max(output.width, Measurement.get(wide, wide.options.update(width=1), table).minimum)
        console(width=needed, soft_wrap=True).print(_Trimmed(table))
        return
    console(width=max(output.width, needed), soft_wrap=True).print(_Trimmed(table))


class _Trimmed:
    """A table without the spaces at the ends of lines, which fill it to its width and would wrap on a terminal."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def __rich_console__(self, output: Console, options: ConsoleOptions) -> Iterator[Segment]:
        for line in Segment.split_lines(output.render(self._table, options)):
            segments = list(line)
            while segments and not segments[-1].text.rstrip(" "):
                segments.pop()
            if segments:
                last = segments.pop()
                yield from segments
                yield Segment(last.text.rstrip(" "), last.style)
            yield Segment.line()


def print_line(text: str) -> None:
    """Print a sentence as one line; terminals wrap it, so that paths and commands in it can be copied."""
    console(soft_wrap=True).print(shown(text), highlight=False)


def show_page(summary: Mapping[str, Any]) -> None:
    """Print where the report of a run is, if its summary names one."""
    if summary.get("report") is not None:
        print_line(f"Report, to open in a browser: {summary['report']}")


def print_json(values: Mapping[str, Any]) -> None:
    """Print one JSON object in ASCII; NaN and infinity become null."""
    # JSON escapes control characters itself, and masking its text could remove the escape of a quotation mark.
    print(as_json_text(values), file=unfiltered_stdout())


def unfiltered_stdout() -> Any:
    """The stream below `SafeStream`, for text in which secrets are masked and control characters are escaped."""
    return sys.stdout.bypassed() if isinstance(sys.stdout, SafeStream) else sys.stdout


def as_json_text(values: Mapping[str, Any], indent: int | None = 2) -> str:
    """One JSON object, in one line without `indent`; non-ASCII characters are escaped, secrets in URLs are masked."""
    return json.dumps(_plain(values), indent=indent, allow_nan=False)


def _plain(value: Any) -> Any:
    """A value of JSON's types; its strings are masked one by one, because their quotation marks end a secret."""
    if isinstance(value, Mapping):
        return {without_secrets(str(name)): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, int) else without_secrets(str(value))


def _words(name: str) -> str:
    words = name.replace("_gib", "").removeprefix("bytes_")
    return shown(_SPACE.sub(" ", f"size {words}" if words != name and name.startswith("bytes_") else words))


def _unit(name: str) -> str:
    return "bytes" if name.startswith("bytes_") else "GiB" if "_gib" in name else ""


def _measure(value: Any, unit: str) -> str:
    """A value; an amount of data or memory with its unit."""
    if unit == "bytes" and isinstance(value, int):
        return size_text(value) if value < 1024 else f"{size_text(value)} ({value:,} bytes)"
    return f"{_text(value)} GiB" if unit == "GiB" and isinstance(value, int | float) else _text(value)


def _unbroken(value: Any) -> str:
    """A cell whose paths, commands and percentages are not wrapped at their spaces."""
    text = _text(value)
    if isinstance(value, Path):
        return text.replace(" ", _GAP)
    return with_terms_joined(_COMMAND.sub(lambda command: command[0].replace(" ", _GAP), text), _GAP)


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    return shown(value.as_posix() if isinstance(value, Path) else str(value), lines=True)  # in its column
