"""Figures of a study: the values of the arms, and their differences from others."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import polars as pl

from ...studies.study_results import RESAMPLINGS
from ..figures.bars import bars
from ..figures.figure import Figure, figure_name

Row = dict[str, Any]
TITLES: Final = {"seeds": "over seeds", "images": "over images", "both": "over both"}
"""The units that an interval resamples."""
_NUMBERS: Final = {"value": pl.Float64(), "low": pl.Float64(), "high": pl.Float64()}


def metric_title(metric: str) -> str:
    """A metric's name in sentences."""
    return metric.replace("_", " ")


def value_figures(values: Sequence[Row], part: str) -> Iterator[Figure]:
    """One figure for each regime: every metric of every arm."""
    for regime, rows in _by_regime(values):
        best = max((row for row in rows if row["metric"] == rows[0]["metric"]), key=lambda row: row["value"])
        said = f"the highest {metric_title(best['metric'])} is {best['value']:.3f} ({best['arm']})"
        yield bars(
            name=f"values-{part}-{figure_name(regime)}",
            title=f"{regime}: values",
            caption=f"Means over seeds with 95 % intervals over seeds; {said}.",
            alt=f"Values of {len({row['arm'] for row in rows})} arms; {said}.",
            points=_points(rows, "value", "mean over seeds"),
            value_label="score",
            from_zero=False,
        )


def difference_figures(differences: Sequence[Row], part: str, baseline: str) -> Iterator[Figure]:
    """One figure for each regime: differences from the baseline in every metric, with each kind of interval."""
    against = [row for row in differences if row["against"] == baseline]
    for regime, rows in _by_regime(against):
        beyond = [row for row in rows if row["resampling"] == "both" and excludes_zero(row)]
        said = f"{len(beyond)} of {len(rows) // len(RESAMPLINGS)} intervals over both exclude 0"
        yield bars(
            name=f"differences-{part}-{figure_name(regime)}",
            title=f"{regime}: differences from {baseline}",
            caption=f"Points: difference from {baseline}; bars: 95 % intervals, each comparison alone. {said}.",
            alt=f"Differences from {baseline}; {said}.",
            points=_difference_points(rows),
            value_label="difference",
            from_zero=False,
        )


def excludes_zero(row: Row) -> bool:
    """Whether an interval excludes 0."""
    return row["low"] is not None and (row["low"] > 0 or row["high"] < 0)


def _by_regime(rows: Sequence[Row]) -> Iterator[tuple[str, list[Row]]]:
    for regime in dict.fromkeys(row["regime"] for row in rows):
        yield regime, [row for row in rows if row["regime"] == regime]


def _difference_points(rows: Sequence[Row]) -> pl.DataFrame:
    """Metric by metric, one series for each kind of interval."""
    metrics = dict.fromkeys(row["metric"] for row in rows)
    return pl.concat(
        _points([row for row in rows if row["resampling"] == kind and row["metric"] == metric], "difference", title)
        for metric in metrics
        for kind, title in TITLES.items()
    )


def _points(rows: Sequence[Row], column: str, series: str) -> pl.DataFrame:
    """Panels are metrics, groups are arms."""
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    table = [
        {"panel": metric_title(row["metric"]), "group": row["arm"], "series": series, "value": row[column]}
        | {"low": row["low"], "high": row["high"]}
        for row in sorted(rows, key=lambda row: metrics.index(row["metric"]))
    ]
    return pl.DataFrame(table, schema_overrides=_NUMBERS)
