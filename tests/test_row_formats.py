"""`--format`: rows as CSV and JSON lines for other programs; JSON and the table are what they were."""

import csv
import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest
from command_tree import COMMANDS
from medalign.cli import app
from medalign.pipeline.evaluation.grounding.grounding_table import grounding_rows
from medalign.pipeline.evaluation.grounding.layer_statistics import GroundingFindings, LayerFinding
from medalign.pipeline.evaluation.statistics import Difference, Interval
from medalign.pipeline.row_output import Rows, print_csv, print_json_lines
from typer.testing import CliRunner

LISTS = ("teacher list", "student decodings", "config list", "assets list")


def typed(words, *more):
    result = CliRunner().invoke(app, [*words.split(), *more])
    return result.stdout, result.exit_code, result.stderr


@pytest.mark.parametrize("words", LISTS)
def test_lists_in_every_format_have_the_same_rows(words):
    plain, _, _ = typed(words)
    assert typed(words, "--format", "table")[0] == plain
    document, _, _ = typed(words, "--json")
    assert typed(words, "--format", "json")[0] == document == typed(words, "--json", "--format", "json")[0]
    records = list(csv.DictReader(io.StringIO(typed(words, "--format", "csv")[0])))
    lines = [json.loads(line) for line in typed(words, "--format", "jsonl")[0].splitlines()]
    values = json.loads(document)
    (names,) = [[*inner] if isinstance(inner, dict) else [row["name"] for row in inner]
                for inner in (values.values() if len(values) == 1 else [values])]  # fmt: skip
    first = next(iter(lines[0]))
    assert [line[first] for line in lines] == [record[first] for record in records] == names
    assert [list(line) for line in lines] == [list(record) for record in records]


@pytest.mark.parametrize("words", LISTS)
@pytest.mark.parametrize("other", ["csv", "jsonl", "table"])
def test_json_and_another_format_contradict_each_other(words, other):
    _, code, error = typed(words, "--json", "--format", other)
    assert code == 2
    assert f"--json and --format {other} are incompatible" in error


def test_every_command_that_prints_rows_has_the_option():
    found = set()
    pending = [((), COMMANDS)]
    while pending:
        names, command = pending.pop()
        pending += [((*names, name), inner) for name, inner in getattr(command, "commands", {}).items()]
        if any("--format" in parameter.opts for parameter in command.params):
            found.add(" ".join(names))
    of_figures = {"report draw"}
    assert found - of_figures == {*LISTS, "assets verify", "student compare", "student ground"}


ROWS = Rows(
    ("name", "x", "yes", "path", "list", "none"),
    [
        ('a "b", c\nd', 0.1 + 0.2, True, Path("a/b"), ["x", 1], None),
        ("=\x1b[31m", float("nan"), False, Path("c"), [], None),
        ("Ж", -(10**20), True, Path("c"), {}, None),
    ],
)


def printed(show, monkeypatch):
    output = io.StringIO()
    monkeypatch.setattr(sys, "stdout", output)
    show(ROWS)
    return output.getvalue()


def test_csv_is_read_back_by_the_csv_module_and_by_polars(monkeypatch):
    text = printed(print_csv, monkeypatch)
    header, *rows = csv.reader(io.StringIO(text))
    assert text.count("\n") == 1 + len(ROWS.rows)
    assert tuple(header) == ROWS.columns
    assert rows[0] == [r'a "b", c\nd', "0.30000000000000004", "true", "a/b", '["x", 1]', ""]
    assert rows[1] == [r"=\x1b[31m", "", "false", "c", "[]", ""]
    assert rows[2][:2] == ["Ж", "-100000000000000000000"]
    table = pl.read_csv(text.encode())
    assert table["x"].to_list() == [0.30000000000000004, None, -1e20]
    assert table["yes"].to_list() == [True, False, True]
    assert "\x1b" not in text


def test_json_lines_are_one_object_each(monkeypatch):
    lines = printed(print_json_lines, monkeypatch).splitlines()
    assert all(line.isascii() for line in lines)
    assert [json.loads(line)["x"] for line in lines] == [0.1 + 0.2, None, -(10**20)]
    assert json.loads(lines[0])["name"] == ROWS.rows[0][0]


def test_no_rows_have_a_header_line(monkeypatch):
    output = io.StringIO()
    monkeypatch.setattr(sys, "stdout", output)
    print_csv(Rows(("a", "b"), []))
    print_json_lines(Rows(("a", "b"), []))
    assert output.getvalue() == "a,b\n"


def test_grounding_has_one_row_per_layer_and_measure():
    change = Difference(mean=0.1, low=0.0, high=0.2)
    findings = [
        LayerFinding(layer=2, measure="mass", value=0.5, interval=Interval(low=0.4, high=0.6), other=0.3,
                     beyond_other=change),
        LayerFinding(layer="all", measure="mass", value=None, interval=None, other=None, beyond_other=None),
    ]  # fmt: skip
    report = SimpleNamespace(
        aligned_layers=(2,), findings=GroundingFindings(images=3, chance={"mass": 0.25}, layers=tuple(findings))
    )
    rows = grounding_rows(report)
    first, last = (dict(zip(rows.columns, row, strict=True)) for row in rows.rows)
    assert (first["layer"], first["aligned"], first["low"], first["high"], first["chance"]) == (2, True, 0.4, 0.6, 0.25)
    assert (first["beyond_other"], first["beyond_other_low"], first["change"]) == (0.1, 0.0, None)
    assert (last["layer"], last["aligned"], last["value"], last["low"]) == ("all", False, None, None)
