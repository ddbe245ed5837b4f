"""What is printed can be copied: no path, digest, URL or command is cut or wrapped, on a terminal and in a pipe."""

import fcntl
import io
import os
import pty
import re
import struct
import termios
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from command_tree import COMMANDS
from hypothesis import given, settings
from hypothesis import strategies as st
from medalign.cli import app
from medalign.pipeline import terminal
from medalign.pipeline.evaluation.comparison.render import show_comparison
from medalign.pipeline.evaluation.grounding.grounding_table import show_grounding
from medalign.pipeline.evaluation.grounding.measures import MEASURES
from medalign.plain_text import size_text
from typer.testing import CliRunner

DIGEST = "0123456789abcdef" * 4
COMMAND = "medalign store repair /data/stores/cxr.zarr --weights unimed-clip-vit-b16.pt --manifest cxr.parquet"
NAMES = st.text("abcdefghij -_.", min_size=1, max_size=40).map(lambda name: f"x{name.strip()}x")
PATHS = st.lists(NAMES, min_size=1, max_size=12).map(lambda names: Path("/", *names))


def on_terminal(show: Callable[[], object], columns: int = 80) -> str:
    """What `show` prints on a terminal of this width."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    text, attributes = [], termios.tcgetattr(slave)
    attributes[1] &= ~termios.OPOST
    termios.tcsetattr(slave, termios.TCSANOW, attributes)
    fcntl.fcntl(master, fcntl.F_SETFL, os.O_NONBLOCK)

    class Terminal(io.TextIOBase):
        def write(self, data: str) -> int:
            os.write(slave, data.encode())
            while True:
                try:
                    text.append(os.read(master, 1 << 16))
                except BlockingIOError:
                    return len(data)

        def isatty(self) -> bool:
            return True

        def fileno(self) -> int:
            return slave

    try:
        with redirect_stdout(Terminal()):
            show()
    finally:
        os.close(slave)
        os.close(master)
    return re.sub(r"\x1b\[[0-9;]*m", "", b"".join(text).decode())


def in_pipe(show: Callable[[], object]) -> str:
    with redirect_stdout(io.StringIO()) as output:
        show()
    return output.getvalue()


@pytest.fixture(scope="module", autouse=True)
def plain_environment():
    with pytest.MonkeyPatch.context() as patch:
        for name in ("COLUMNS", "LINES", "FORCE_COLOR"):
            patch.delenv(name, raising=False)
        patch.setenv("TERM", "xterm")
        yield


@pytest.fixture(params=[on_terminal, in_pipe])
def printed(request):
    """What a function prints on a terminal of 80 columns, or in a pipe."""
    return request.param


@pytest.mark.parametrize("show_on", [on_terminal, in_pipe])
@settings(max_examples=12)
@given(path=PATHS, others=st.lists(PATHS, max_size=3))
def test_summaries_and_rows_keep_paths_digests_and_commands_whole(show_on, path, others):
    values = {
        "out": path, "root_sha256": DIGEST, "files": [str(path), *map(str, others)],
        "problems": [{"file": str(path), "what": f"run `{COMMAND}`"}], "more": {"store": str(path), "list": [DIGEST]},
    }  # fmt: skip
    summary = show_on(lambda: terminal.show_summary(str(path), values, as_json=False))
    assert summary.count(str(path)) >= 5
    assert summary.count(DIGEST) == 2
    assert COMMAND in summary
    assert all(str(other) in summary for other in others)
    rows = [("a", path, f"run `{COMMAND}` first", 3), ("b", None, "a sentence of words that may be wrapped " * 4, 4)]
    table = show_on(lambda: terminal.show_rows("files", ("name", "path", "what to do", "n"), rows, as_json=False))
    assert str(path) in table
    assert COMMAND in table
    assert "…" not in table


def test_a_terminal_wraps_sentences_in_tables_between_words(printed):
    rows = [("a", "a sentence of words " * 10, "second sentence " * 10)]
    lines = printed(lambda: terminal.show_rows("rows", ("name", "one", "two"), rows, as_json=False)).splitlines()
    if printed is on_terminal:
        assert max(map(len, lines)) <= 80
        words = {word for line in lines[4:-1] for word in re.split(r"[\s│]+", line)}
        assert words == {"", "a", "sentence", "of", "words", "second"}
    else:
        assert any("a sentence of words " * 9 in line for line in lines)


def test_no_line_of_a_table_ends_with_spaces_or_before_a_percent_sign(printed):
    summary = printed(lambda: terminal.show_summary("s", {"long": DIGEST * 2, "short": 1}, as_json=False)).splitlines()
    assert [line.split() for line in summary] == [["s"], ["long", DIGEST * 2], ["short", "1"]], "and no empty line"
    rows = [("a", "as much as 95 % or " * 12)]
    lines = printed(lambda: terminal.show_rows("rows", ("name", "share"), rows, as_json=False)).splitlines()
    assert all(line == line.rstrip() for line in (*summary, *lines))
    assert not any(re.search(r"95\s*│", line) for line in lines)


def test_notes_and_tables_of_runs_keep_paths_whole(printed):
    path = "/data/" + "/".join(f"folder-{number}" for number in range(30))
    grounding = SimpleNamespace(
        findings=SimpleNamespace(images=1, chance=dict.fromkeys([each.name for each in MEASURES], 0.5), layers=()),
        questions=1, aligned_layers=(), out=Path(path), against=Path(path), left_out={"no region": 1},
    )  # fmt: skip
    assert printed(lambda: show_grounding(grounding, as_json=False)).count(path) == 2
    summary = {"warnings": [f"see {path}"], "tables": [path]}
    assert printed(lambda: show_comparison(summary, [], as_json=False)).count(path) == 2


def test_lists_are_shown(printed):
    values = {"mean": [0.5, 0.25], "names": ["a", "b"], "none": [], "many": [f"item-{number}" for number in range(25)]}
    lines = [line.split() for line in printed(lambda: terminal.show_summary("s", values, as_json=False)).splitlines()]
    assert lines[1:5] == [["mean", "0.5,", "0.25"], ["names", "a"], ["b"], ["none", "none"]]
    assert lines[-1] == ["and", "5", "more", "(--json", "prints", "all)"]


def test_amounts_have_units(printed):
    values = {"bytes_on_disk": 279_575_920, "bytes_not_checked": 0, "memory_gib": {"total": 1.5}, "images": 2048}
    lines = [line.split() for line in printed(lambda: terminal.show_summary("s", values, as_json=False)).splitlines()]
    assert lines[1:] == [
        ["size", "on", "disk", "266.6", "MiB", "(279,575,920", "bytes)"],
        ["size", "not", "checked", "0", "bytes"],
        ["memory:", "total", "1.5", "GiB"],
        ["images", "2,048"],
    ]


@given(st.integers(0, 2**60))
def test_sizes_are_within_half_a_tenth_of_their_unit(number):
    amount, unit = size_text(number).replace(",", "").split()
    factor = {"byte": 1, "bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}[unit]
    assert abs(float(amount) * factor - number) <= (0.05 + 1e-9) * factor
    assert float(amount) < 1024 or unit == "TiB"


def test_help_breaks_no_command_option_or_description():
    runner, seen = CliRunner(), 0
    pending: list[tuple[tuple[str, ...], Any]] = [((), COMMANDS)]
    while pending:
        path, command = pending.pop()
        pending += [((*path, name), inner) for name, inner in getattr(command, "commands", {}).items()]
        output = runner.invoke(app, [*path, "--help"], terminal_width=80).output
        assert not re.search(r"\w\.\.\.$", output, re.MULTILINE), "a description is cut"
        texts = [command.help, *(parameter.help or "" for parameter in command.params if hasattr(parameter, "help"))]
        for quoted in re.findall(r"`[^`]+`|--[a-z-]+[a-z]|hf-hub:ID", " ".join(texts)):
            seen += 1
            assert quoted in output, (path, quoted)
    assert seen > 30
