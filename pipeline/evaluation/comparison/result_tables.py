"""Arrange findings as tables in the paper's layout, independent of the output format."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ....student.metrics.result import MetricResult
from ...runs.stop_reasons import shown_finishes
from ..statistics import FEW_IMAGES
from .analysis import Cost, Finding, ScoredCell, System, Table
from .cells import Cell, decoding_for
from .paper_figures import other_settings, paper_figure, paper_source
from .spec import ComparisonSpec

DAGGER = "\N{DAGGER}"
"""Marks a number of the paper whose method had other settings."""
DOUBLE_DAGGER = "\N{DOUBLE DAGGER}"
"""Marks an interval from fewer than `FEW_IMAGES` images."""
LEVEL = 0.05
"""Significance level: a smaller adjusted p gets a star."""
TITLES: Mapping[Table, str] = {
    "strict": "answers to questions, `strict` scores",
    "reference": "answers to questions, `reference` scores (as in the paper)",
    "reports": "reports",
}


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


def answer_grid(
    spec: ComparisonSpec, student: str, table: Table, findings: Sequence[Finding], prices: Sequence[Cost]
) -> Grid | None:
    """Systems in rows, data sets and kinds of question in columns, as in the paper's Table 3; `None` if empty."""
    own = [finding for finding in findings if finding.system.student == student and finding.table == table]
    columns = list(dict.fromkeys((finding.data, finding.metric) for finding in own))
    if not columns:
        return None
    found = {(finding.system, finding.data, finding.metric): finding for finding in own}
    data = list(dict.fromkeys(data for data, _ in columns))
    own_prices = [price for price in prices if price.data in data]
    rows = []
    for system in _systems(own):
        entries = [_entry(spec, found.get((system, *column)), own) for column in columns]
        rows.append((*_names(system), *entries, *_price(system, own_prices)))
    spans = [(name, sum(column[0] == name for column in columns)) for name in data]
    kinds = tuple(metric.split("_")[0] for _, metric in columns)
    return Grid(
        title=f"{student}: {TITLES[table]}",
        groups=(("", 2), *spans, ("cost per answer", 2)),
        header=("adapter", "decoding", *kinds, "seconds", "passes"),
        rows=tuple(rows),
        notes=_notes(spec, own),
    )


def report_grids(spec: ComparisonSpec, student: str, findings: Sequence[Finding], prices: Sequence[Cost]) -> list[Grid]:
    """Data sets and metrics in rows, decodings in columns, one table per adapter, as in the paper's Tables 1 and 2."""
    own = [finding for finding in findings if finding.system.student == student and finding.table == "reports"]
    found = {(finding.system, finding.data, finding.metric): finding for finding in own}
    metrics = list(dict.fromkeys((finding.data, finding.metric) for finding in own))
    grids = []
    for adapter in dict.fromkeys(finding.system.adapter for finding in own):
        systems = [system for system in _systems(own) if system.adapter == adapter]
        rows = [
            (Entry(text=data), Entry(text=metric), *(_entry(spec, found.get((s, data, metric)), own) for s in systems))
            for data, metric in metrics
        ]
        kept = [price for price in prices if price.data in {data for data, _ in metrics}]
        for place, unit in enumerate(("seconds", "passes")):
            rows.append((Entry(text=""), Entry(text=unit), *(_price(system, kept)[place] for system in systems)))
        grids.append(
            Grid(
                title=f"{student}, {adapter}: {TITLES['reports']}",
                header=("data", "metric", *(system.decoding for system in systems)),
                rows=tuple(rows),
                notes=_notes(spec, own),
            )
        )
    return grids


def difference_grid(spec: ComparisonSpec, student: str, table: Table, findings: Sequence[Finding]) -> Grid | None:
    """Every comparison with the baseline; `None` if there is none."""
    own = [
        finding
        for finding in findings
        if finding.system.student == student and finding.table == table and finding.difference is not None
    ]
    rows = tuple(
        (
            *_names(finding.system),
            Entry(text=finding.data),
            Entry(text=finding.metric.removesuffix(f"_{table}")),
            Entry(
                text="-" if finding.difference is None else f"{100 * finding.difference:+.2f}",
                interval=_span(finding, finding.difference_low, finding.difference_high),
            ),
            Entry(text=f"{finding.p:.4f}"),
            Entry(text=f"{finding.p_holm:.4f}", starred=_told_apart(finding)),
        )
        for finding in own
    )
    if not rows:
        return None
    return Grid(
        title=f"{student}: differences from {spec.baseline.adapter}, {spec.baseline.decoding}; {TITLES[table]}",
        header=("adapter", "decoding", "data", "metric", "difference, points", "p", "p (Holm)"),
        rows=rows,
        notes=_few_images(own),
    )


def cell_grid(cells: Mapping[Cell, ScoredCell]) -> Grid:
    """One row per cell: what was run, its cost and its values."""
    values = {cell: cell_values(scored) for cell, scored in cells.items()}
    names = list(dict.fromkeys(name for found in values.values() for name in found))
    rows = []
    for cell, scored in cells.items():
        rows.append(
            (
                *(Entry(text=name) for name in (cell.student, cell.adapter, cell.decoding, cell.data, str(cell.seed))),
                Entry(text=str(scored.answers)),
                Entry(text=f"{scored.seconds / scored.answers:.3g}"),
                Entry(text=f"{scored.forwards / scored.answers:.4g}"),
                *(Entry(text="-" if n is None else str(n)) for n in shown_finishes(scored.finishes).values()),
                *(Entry(text=_percent(values[cell].get(name))) for name in names),
            )
        )
    cost = ("answers", "seconds", "passes", "empty", "cut off")
    header = ("student", "adapter", "decoding", "data", "seed", *cost, *names)
    return Grid(title="Every cell", header=header, rows=tuple(rows))


def cell_values(scored: ScoredCell) -> dict[str, float]:
    """The metrics that score at least one answer of a cell, by name."""
    found = {result.name: result.value for result in scored.results if isinstance(result, MetricResult)}
    return {name: value for name, value in found.items() if value is not None}


def _systems(findings: Sequence[Finding]) -> list[System]:
    return list(dict.fromkeys(finding.system for finding in findings))


def _names(system: System) -> tuple[Entry, Entry]:
    return Entry(text=system.adapter), Entry(text=system.decoding)


def _entry(spec: ComparisonSpec, finding: Finding | None, others: Sequence[Finding]) -> Entry:
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
    text = _percent(finding.value)
    return Entry(
        text=text,
        best=len(rivals) > 1 and text == _percent(max(rivals)),
        starred=_told_apart(finding),
        interval=_span(finding, finding.low, finding.high),
        paper=_paper(spec, finding),
        other_settings=bool(_other_settings(spec, finding.system)),
    )


def _told_apart(finding: Finding) -> bool:
    return finding.p_holm is not None and finding.p_holm < LEVEL


def _paper(spec: ComparisonSpec, finding: Finding) -> str:
    """The paper's number for the same student, data set, metric and method."""
    student = next(item for item in spec.students if item.name == finding.system.student)
    adapter = next(item for item in student.adapters if item.name == finding.system.adapter)
    data = next(item for item in spec.data if item.name == finding.data)
    method = next(item.method for item in spec.decodings if item.name == finding.system.decoding)
    if student.paper is None or data.paper is None:
        return ""
    figure = paper_figure(student.paper, data.paper, finding.metric, adapter.paper, method)
    return "" if figure is None else f"{figure:.2f}"


def _other_settings(spec: ComparisonSpec, system: System) -> dict[str, tuple[Any, Any]]:
    """Settings of a system's decoding that differ from the paper's code: name -> (ours, the paper's)."""
    student = next(item for item in spec.students if item.name == system.student)
    if student.paper is None:
        return {}
    decoding = decoding_for(spec, system.decoding, student.name, spec.data[0].name, spec.seeds[0])
    return other_settings(student.paper, decoding)


def _price(system: System, prices: Sequence[Cost]) -> tuple[Entry, Entry]:
    """Seconds and forward passes per answer, over all data sets."""
    own = [price for price in prices if price.system == system]

    def mean(of: Callable[[Cost], float]) -> float:
        return sum(of(price) * price.answers for price in own) / sum(price.answers for price in own)

    return Entry(text=f"{mean(lambda price: price.seconds):.3g}"), Entry(
        text=f"{mean(lambda price: price.forwards):.4g}"
    )


def _notes(spec: ComparisonSpec, findings: Sequence[Finding]) -> tuple[str, ...]:
    """Notes on how to read a table, and which metrics are absent."""
    tests = sum(finding.p is not None for finding in findings)
    repeats = sorted({finding.repeats for finding in findings})
    seeds = "seed" if repeats == [1] else "seeds"
    notes = [
        "Percent. Brackets: 95 % intervals over the choice of test images (bootstrap of whole images, "
        f"{spec.resamples:,} resamples). Bold: the highest.",
        f"*: differs from {spec.baseline.adapter}, {spec.baseline.decoding}: p < {LEVEL} in the paired randomization "
        f"test over images, with Holm's correction for the {tests} comparisons in this table.",
        f"Means over {' or '.join(map(str, repeats))} {seeds}; the intervals do not include the spread between seeds.",
        *_few_images(findings),
    ]
    absent = {finding.metric: finding.absent for finding in findings if finding.absent is not None}
    notes += [f"{metric} is absent: {reason}" for metric, reason in absent.items()]
    if any(_paper(spec, finding) for finding in findings):
        notes.append(f"Parentheses: numbers of {paper_source()}.")
    beside = {f.system.decoding: _other_settings(spec, f.system) for f in findings if _paper(spec, f)}
    told = [
        f"{name} ({', '.join(f'{key} {ours}, paper {theirs}' for key, (ours, theirs) in differing.items())})"
        for name, differing in beside.items()
        if differing
    ]
    if told:
        notes.append(f"{DAGGER}: the paper's code used other settings for this method: {'; '.join(told)}.")
    return tuple(notes)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def _span(finding: Finding, low: float | None, high: float | None) -> str:
    if low is None or high is None or low != low:
        return ""
    return f"[{100 * low:.1f}, {100 * high:.1f}]{DOUBLE_DAGGER if finding.images < FEW_IMAGES else ''}"


def _few_images(findings: Sequence[Finding]) -> tuple[str, ...]:
    """The note on intervals from few images, if a table has one."""
    few = {finding.data: finding.images for finding in findings if 0 < finding.images < FEW_IMAGES}
    if not few:
        return ()
    listed = ", ".join(f"{name} {images}" for name, images in few.items())
    return (
        f"{DOUBLE_DAGGER}: from fewer than {FEW_IMAGES} images ({listed}); the interval is widened, and results from "
        "so few images hardly generalize.",
    )
