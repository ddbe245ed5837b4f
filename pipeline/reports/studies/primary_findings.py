"""A finished study of one regime in a few rows, from study-results.json: means and primary comparisons."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..page import Table
from .study_figures import Row, excludes_zero
from .study_page import interval_text


def finding_tables(results: Mapping[str, Any], score: str) -> list[Table]:
    """The means of the primary metric, which readers know as `score`, and the primary comparisons, of one regime."""
    (values,) = results["values"].values()
    return [
        Table(
            columns=["student", score],
            rows=[[arm, f"{value:.3f}"] for arm, value in values.items()],
            caption=f"Means over {len(results['seeds'])} training seeds",
        ),
        Table(
            columns=["comparison", "difference", "is"],
            rows=[[_pair(row), interval_text(row), _word(row)] for row in _primary(results)],
            caption="Primary comparisons, with 95 % intervals over seeds and test images",
        ),
    ]


def finding_text(results: Mapping[str, Any]) -> str:
    """The primary comparisons on one line."""
    return "; ".join(f"{_pair(row)} {interval_text(row)}" for row in _primary(results))


def _primary(results: Mapping[str, Any]) -> Sequence[Row]:
    return [row for row in results["differences"] if row["primary"]]


def _pair(row: Row) -> str:
    return f"{row['arm']} - {row['against']}"


def _word(row: Row) -> str:
    if not excludes_zero(row):
        return "no significant difference"
    return "better" if row["difference"] > 0 else "worse"
