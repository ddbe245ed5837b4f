"""The page of `medalign student compare`: values and differences with intervals, the tables, and the cost."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from ....plain_text import as_typed, counted
from ....student.file_errors import read_object
from ...data import saved_tables
from ...evaluation.comparison.analysis import table_of
from ...evaluation.comparison.claim import COMPARISON_FILE
from ...evaluation.comparison.compare import CELLS_FILE, FINDINGS_FILE
from ...evaluation.comparison.comparison_tables import ComparisonTables, read_comparison_tables
from ...evaluation.comparison.table_entries import LEVEL, Entry, Grid
from ...runs.run_inputs import RunInputs
from ..page import Page, Section, State, Strong, Table
from .comparison_figures import (
    TABLES,
    Row,
    cost_figures,
    difference_figures,
    difference_sentence,
    is_significant,
    value_figures,
)
from .wording import listed, warning_texts

_CELLS_TITLE: Final = "Every cell"


def comparison_page(out: Path, given: RunInputs | None = None) -> Page:
    """The page of a finished comparison; it shows no question, so `given` is not used.

    Raises:
        InputError: The comparison is unfinished or from an earlier version, or a file is missing or damaged.
    """
    tables = read_comparison_tables(out)
    again = f"`medalign student compare SPEC.yaml --reanalyze --out {as_typed(out)}` writes it again"
    cells = saved_tables.read(out / CELLS_FILE, again).rows
    findings = saved_tables.read(out / FINDINGS_FILE, again).rows.to_dicts()
    baseline = f"{tables.adapter}, {tables.decoding}"
    read_first = [row for row in findings if table_of(row["metric"]) in (tables.reading, "reports")]
    lead, state = _lead(read_first, baseline)
    sections = [
        *_result_sections(tables, findings, baseline),
        Section(title="Cost", figures=[figure for _, figure in cost_figures(cells)]),
        Section(
            title=_CELLS_TITLE,
            tables=[_table(grid) for grid in tables.tables if grid.title == _CELLS_TITLE],
            folded=True,
        ),
    ]
    if tables.warnings:
        sections.insert(0, Section(title="Warnings", text=warning_texts(tables.warnings, after_a_name=True)))
    return Page(
        title=tables.title,
        lead=lead + (" Read the warnings first." if tables.warnings else ""),
        state=state,
        notice=f"The page contains no image and no text of a data set, but numbers derived from questions whose "
        f"data-use class is {tables.data_use}.",
        facts=_facts(out, tables),
        sections=tuple(sections),
    )


def _lead(rows: Sequence[Row], baseline: str) -> tuple[str, State]:
    """Which systems differ significantly from the baseline, in the scores that the specification asks for."""
    compared = [row for row in rows if row["p_holm"] is not None]
    if not compared:
        return (
            f"Nothing was compared with {baseline}: no other system has a metric in common with it.",
            "neutral",
        )
    better = [row for row in compared if is_significant(row) and row["difference"] > 0]
    worse = [row for row in compared if is_significant(row) and row["difference"] < 0]
    number = f"{counted(len(compared), 'comparison')} (p < {LEVEL} after Holm's correction)"
    if not better and not worse:
        largest = max(compared, key=lambda row: abs(row["difference"]))
        return (
            f"No significant difference from {baseline} in {number}. The largest one could be due to chance: "
            f"{difference_sentence(largest)}, p = {largest['p_holm']:.2g} after the correction. Rely on this p: it "
            "accounts for all comparisons, whereas each interval accounts for only one."
        ), "neutral"
    parts = [f"Compared with {baseline}, in {number}:"]
    for word, found in (("significantly better", better), ("significantly worse", worse)):
        if found:
            found = sorted(found, key=lambda row: -abs(row["difference"]))
            parts.append(f"{word}: {listed([difference_sentence(row) for row in found], most=3)}.")
    rest = len(compared) - len(better) - len(worse)
    parts += [f"No significant difference in the other {rest}."] if rest else []
    return " ".join(parts), "good" if not worse else "bad" if not better else "neutral"


def _result_sections(tables: ComparisonTables, findings: Sequence[Row], baseline: str) -> Iterator[Section]:
    """Figures and tables (as in tables.md) of each kind of score, the one that the specification asks for first."""
    values = list(value_figures(findings))
    differences = list(difference_figures(findings, baseline))
    order = sorted(TABLES, key=lambda table: (table != tables.reading, table != "reports"))
    for kind in order:
        figures = [figure for _, table, figure in [*values, *differences] if table == kind]
        grids = [grid for grid in tables.tables if _kind_of(grid) == kind]
        title = TABLES[kind].capitalize()
        if figures:
            yield Section(title=title, figures=figures)
        if grids:
            notes = list(dict.fromkeys(note for grid in grids for note in grid.notes))
            yield Section(
                title=f"{title}: tables",
                text=notes,
                tables=[_table(grid) for grid in grids],
                folded=kind != tables.reading and kind != "reports",
            )


def _kind_of(grid: Grid) -> str:
    """The kind of score of a table, from its title."""
    for kind in ("strict", "reference"):
        if f"`{kind}` scores" in grid.title:
            return kind
    return "" if grid.title == _CELLS_TITLE else "reports"


def _table(grid: Grid) -> Table:
    groups = [name for name, width in grid.groups for _ in range(width)] or [""] * len(grid.header)
    columns = [f"{group}: {name}" if group else name for group, name in zip(groups, grid.header, strict=True)]
    return Table(
        columns=columns,
        rows=[[_cell(entry) for entry in row] for row in grid.rows],
        caption=grid.title.replace("`", ""),
    )


def _cell(entry: Entry) -> str | Strong:
    paper = f"(paper {entry.paper}{' with other settings' if entry.other_settings else ''})" if entry.paper else ""
    parts = [entry.text + ("*" if entry.starred else ""), entry.interval, paper]
    text = " ".join(part for part in parts if part)
    return Strong(text) if entry.best else text


def _facts(out: Path, tables: ComparisonTables) -> dict[str, object]:
    answers = read_object(out / COMPARISON_FILE).get("answers", {})
    facts: dict[str, object] = {
        "baseline": f"{tables.adapter}, {tables.decoding}",
        "cells and questions": " ".join(tables.preamble),
        "data-use class": tables.data_use,
    }
    names = {"medalign": "medalign", "threads": "threads"}
    facts |= {title: answers[name] for name, title in names.items() if name in answers}
    prints = {name.removesuffix("_fingerprint"): value for name, value in answers.items() if "fingerprint" in name}
    return facts | {f"{name}: fingerprint".removeprefix("students."): str(value)[:12] for name, value in prints.items()}
