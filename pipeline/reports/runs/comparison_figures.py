"""Figures of a comparison: every metric of every system, differences from the baseline, and cost."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, Final

import numpy as np
import polars as pl

from ....plain_text import signed_text
from ...evaluation.comparison.analysis import table_of
from ...evaluation.comparison.table_entries import LEVEL, NO_WIDTH
from ..figures.bars import bars
from ..figures.figure import Figure, figure_name
from .wording import listed, percent, points

TABLES: Final = {"strict": "strict scores", "reference": "reference scores", "reports": "report metrics"}
_NUMBERS: Final = {"value": pl.Float64(), "low": pl.Float64(), "high": pl.Float64()}

Row = dict[str, Any]
"""A row of findings.parquet: one system, data set and metric."""


def system_of(row: Row) -> str:
    """A system's name in sentences."""
    return f"{row['adapter']}, {row['decoding']}"


def metric_of(row: Row) -> str:
    """A metric's name in sentences: without the scoring, with the data set."""
    return f"{row['metric'].removesuffix('_strict').removesuffix('_reference').replace('_', ' ')} ({row['data']})"


def is_significant(row: Row) -> bool:
    """Whether a system differs from the baseline after Holm's correction."""
    return row["p_holm"] is not None and row["p_holm"] < LEVEL


def difference_sentence(row: Row) -> str:
    """A system's difference from the baseline in words."""
    low, high = row["difference_low"], row["difference_high"]
    interval = f", {signed_text(100 * low, 1)} to {signed_text(100 * high, 1)}" if high - low > NO_WIDTH else ""
    return f"{system_of(row)}: {metric_of(row)} {points(row['difference'])}{interval}"


def value_figures(findings: Sequence[Row]) -> Iterator[tuple[str, str, Figure]]:
    """Student, table and figure: the values of its systems."""
    names = _file_names([row["student"] for row in findings])
    for student, table, rows in _by_table(findings):
        valued = [row for row in rows if row["value"] is not None]
        if valued:
            best = max(valued, key=lambda row: row["value"])
            said = f"the highest value is {percent(best['value'])} ({system_of(best)}: {metric_of(best)})"
            figure = bars(
                name=f"values-{names[student]}-{table}",
                title=f"{student}: {TABLES[table]}",
                caption=f"Bars: 95 % intervals over the choice of test images; {said}.",
                alt=f"Bar chart of {len({system_of(row) for row in valued})} systems; {said}.",
                points=_points(valued, ("value", "low", "high")),
                value_label="value (%)",
            )
            yield student, table, figure


def difference_figures(findings: Sequence[Row], baseline: str) -> Iterator[tuple[str, str, Figure]]:
    """Student, table and figure: the differences of its systems from the baseline."""
    names = _file_names([row["student"] for row in findings])
    for student, table, rows in _by_table(findings):
        compared = [row for row in rows if row["difference"] is not None]
        if compared:
            metrics = {metric_of(row) for row in compared}
            zero = [row for row in rows if system_of(row) == baseline and metric_of(row) in metrics]
            drawn = [row | {"difference": 0.0} if row in zero else row for row in rows if row in [*zero, *compared]]
            significant = [difference_sentence(row) for row in compared if is_significant(row)]
            said = f"significant: {listed(significant)}" if significant else "no difference is significant"
            figure = bars(
                name=f"differences-{names[student]}-{table}",
                title=f"{student}: differences from {baseline}, {TABLES[table]}",
                caption="Points: differences in percentage points, with the baseline at 0; bars: 95 % intervals over "
                f"test images, of each comparison alone. With Holm's correction, {said}.",
                alt=f"Differences from {baseline} with intervals; {said}.",
                points=_points(drawn, ("difference", "difference_low", "difference_high")),
                value_label="difference (points)",
                from_zero=False,
            )
            yield student, table, figure


def cost_figures(cells: pl.DataFrame) -> Iterator[tuple[str, Figure]]:
    """Student and figure: seconds and forward passes per answer, over its data sets and seeds."""
    units = {"seconds_per_answer": "seconds per answer", "forwards_per_answer": "forward passes per answer"}
    names = _file_names(cells["student"].to_list())
    for student in names:
        rows: list[Row] = []
        for (adapter, decoding), own in cells.filter(pl.col("student") == student).group_by(
            "adapter", "decoding", maintain_order=True
        ):
            for column, unit in units.items():
                mean = float(np.average(own[column].to_numpy(), weights=own["answers"].to_numpy()))
                rows.append({"panel": unit, "group": decoding, "series": adapter, "value": mean})
        most = max((row for row in rows if row["panel"] == units["forwards_per_answer"]), key=lambda row: row["value"])
        said = f"the most forward passes are {most['value']:.3g} ({most['series']}, {most['group']})"
        figure = bars(
            name=f"cost-{names[student]}",
            title=f"{student}: cost per answer",
            caption=f"Means over data sets and seeds; {said}. Seconds depend on the machine and on what else it did.",
            alt=f"Bar chart of seconds and forward passes of the language model per answer; {said}.",
            points=pl.DataFrame(sorted(rows, key=lambda row: list(units.values()).index(row["panel"]))),
            value_label="",
        )
        yield student, figure


def _file_names(students: Sequence[str]) -> dict[str, str]:
    """A distinct part of a file's name for each student."""
    found: dict[str, str] = {}
    for student in students:
        if student not in found:
            name = figure_name(student)
            found[student] = f"{name}-{len(found) + 1}" if name in found.values() else name
    return found


def _by_table(findings: Sequence[Row]) -> Iterator[tuple[str, str, list[Row]]]:
    order = list(dict.fromkeys(row["student"] for row in findings))

    def key(row: Row) -> tuple[int, int]:
        return order.index(row["student"]), list(TABLES).index(table_of(row["metric"]))

    for (student, table), rows in groupby(sorted(findings, key=key), key=key):
        yield order[student], list(TABLES)[table], list(rows)


def _points(rows: Sequence[Row], columns: tuple[str, str, str]) -> pl.DataFrame:
    """Panels are metrics, groups are decodings, series are adapters."""
    table = [
        {"panel": metric_of(row), "group": row["decoding"], "series": row["adapter"]}
        | {
            name: None if row[column] is None else 100 * row[column]
            for name, column in zip(_NUMBERS, columns, strict=True)
        }
        for row in rows
    ]
    panels = list(dict.fromkeys(row["panel"] for row in table))
    return pl.DataFrame(sorted(table, key=lambda row: panels.index(row["panel"])), schema_overrides=_NUMBERS)
