"""The entries of result tables: values with their intervals, marks and the paper's numbers beside them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..statistics import FEW_IMAGES
from .analysis import Cost, Finding, System
from .cells import decoding_for
from .paper_figures import other_settings, paper_figure
from .spec import ComparisonSpec

DAGGER = "\N{DAGGER}"
NO_WIDTH = 1e-9
"""An interval of less is not shown: it comes from images that all have the same value."""
"""Marks a number of the paper whose method had other settings."""
DOUBLE_DAGGER = "\N{DOUBLE DAGGER}"
"""Marks an interval from fewer than `FEW_IMAGES` images."""
LEVEL = 0.05
"""Significance level: a smaller adjusted p gets a star."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One entry of a table."""

    text: str
    best: bool = False
    """Whether it is printed in bold."""
    starred: bool = False
    """Whether it differs significantly from the baseline."""
    interval: str = ""
    paper: str = ""
    """The paper's number."""
    other_settings: bool = False
    """Whether the paper's code used other settings for the method."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A table: column headers with groups, rows, and notes."""

    title: str
    groups: tuple[tuple[str, int], ...] = ()
    """Headings above the header, each with its number of columns; empty if there are none."""
    header: tuple[str, ...]
    rows: tuple[tuple[Entry, ...], ...]
    notes: tuple[str, ...] = field(default=())


def name_entries(system: System) -> tuple[Entry, Entry]:
    return Entry(text=system.adapter), Entry(text=system.decoding)


def value_entry(spec: ComparisonSpec, finding: Finding | None, others: Sequence[Finding]) -> Entry:
    """A value in percent with its interval, in bold if it is the highest."""
    if finding is None:
        return Entry(text="-")
    if finding.value is None:
        return Entry(text="absent")
    rivals = [
        other.value
        for other in others
        if (other.data, other.metric) == (finding.data, finding.metric) and other.value is not None
    ]
    text = percent_text(finding.value)
    return Entry(
        text=text,
        best=len(rivals) > 1 and text == percent_text(max(rivals)),
        starred=is_significant(finding),
        interval=span_text(finding, finding.low, finding.high),
        paper=paper_number(spec, finding),
        other_settings=bool(settings_unlike_paper(spec, finding.system)),
    )


def is_significant(finding: Finding) -> bool:
    return finding.p_holm is not None and finding.p_holm < LEVEL


def paper_number(spec: ComparisonSpec, finding: Finding) -> str:
    """The paper's number for the same student, data set, metric and method."""
    student = next(item for item in spec.students if item.name == finding.system.student)
    adapter = next(item for item in student.adapters if item.name == finding.system.adapter)
    data = next(item for item in spec.data if item.name == finding.data)
    method = next(item.method for item in spec.decodings if item.name == finding.system.decoding)
    if student.paper is None or data.paper is None:
        return ""
    figure = paper_figure(student.paper, data.paper, finding.metric, adapter.paper, method)
    return "" if figure is None else f"{figure:.2f}"


def settings_unlike_paper(spec: ComparisonSpec, system: System) -> dict[str, tuple[Any, Any]]:
    """Settings of a system's decoding that differ from the paper's code: name -> (ours, the paper's)."""
    student = next(item for item in spec.students if item.name == system.student)
    if student.paper is None:
        return {}
    decoding = decoding_for(spec, system.decoding, student.name, spec.data[0].name, spec.seeds[0])
    return other_settings(student.paper, decoding)


def price_entries(system: System, prices: Sequence[Cost]) -> tuple[Entry, Entry]:
    """Seconds and forward passes per answer, over all data sets."""
    own = [price for price in prices if price.system == system]

    def mean(of: Callable[[Cost], float]) -> float:
        return sum(of(price) * price.answers for price in own) / sum(price.answers for price in own)

    return Entry(text=f"{mean(lambda price: price.seconds):.3g}"), Entry(
        text=f"{mean(lambda price: price.forwards):.4g}"
    )


def percent_text(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def span_text(finding: Finding, low: float | None, high: float | None) -> str:
    """An interval in a cell; empty if there is none, or if it has no width, which would claim certainty."""
    if low is None or high is None or low != low or high - low < NO_WIDTH:
        return ""
    return f"[{100 * low:.1f}, {100 * high:.1f}]{DOUBLE_DAGGER if finding.images < FEW_IMAGES else ''}"
