"""Arrange findings as tables in the paper's layout, independent of the output format."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from ....plain_text import signed_text
from ....student.metrics.result import MetricResult
from ...runs.stop_reasons import shown_finishes
from ..statistics import FEW_IMAGES
from .analysis import Cost, Finding, ScoredCell, System, Table
from .cells import Cell
from .paper_figures import paper_source
from .spec import ComparisonSpec
from .table_entries import (
    DAGGER,
    DOUBLE_DAGGER,
    LEVEL,
    NO_WIDTH,
    Entry,
    Grid,
    is_significant,
    name_entries,
    paper_number,
    percent_text,
    price_entries,
    settings_unlike_paper,
    span_text,
    value_entry,
)

TITLES: Mapping[Table, str] = {
    "strict": "answers to questions, `strict` scores",
    "reference": "answers to questions, `reference` scores (as in the paper)",
    "reports": "reports",
}


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
        entries = [value_entry(spec, found.get((system, *column)), own) for column in columns]
        rows.append((*name_entries(system), *entries, *price_entries(system, own_prices)))
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
            (
                Entry(text=data),
                Entry(text=metric),
                *(value_entry(spec, found.get((s, data, metric)), own) for s in systems),
            )
            for data, metric in metrics
        ]
        kept = [price for price in prices if price.data in {data for data, _ in metrics}]
        for place, unit in enumerate(("seconds", "passes")):
            rows.append((Entry(text=""), Entry(text=unit), *(price_entries(system, kept)[place] for system in systems)))
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
            *name_entries(finding.system),
            Entry(text=finding.data),
            Entry(text=finding.metric.removesuffix(f"_{table}")),
            Entry(
                text="-" if finding.difference is None else signed_text(100 * finding.difference, 2),
                interval=span_text(finding, finding.difference_low, finding.difference_high),
            ),
            Entry(text=f"{finding.p:.4f}"),
            Entry(text=f"{finding.p_holm:.4f}", starred=is_significant(finding)),
        )
        for finding in own
    )
    if not rows:
        return None
    return Grid(
        title=f"{student}: differences from {spec.baseline.adapter}, {spec.baseline.decoding}; {TITLES[table]}",
        header=("adapter", "decoding", "data", "metric", "difference, points", "p", "p (Holm)"),
        rows=rows,
        notes=(*_few_images(own), *_without_width("Differences", ((f.difference_low, f.difference_high) for f in own))),
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
                *(Entry(text=percent_text(values[cell].get(name))) for name in names),
            )
        )
    cost = ("answers", "seconds", "passes", "empty", "cut off")
    header = ("student", "adapter", "decoding", "data", "seed", *cost, *(name.replace("_", " ") for name in names))
    return Grid(title="Every cell", header=header, rows=tuple(rows))


def cell_values(scored: ScoredCell) -> dict[str, float]:
    """The metrics that score at least one answer of a cell, by name."""
    found = {result.name: result.value for result in scored.results if isinstance(result, MetricResult)}
    return {name: value for name, value in found.items() if value is not None}


def _systems(findings: Sequence[Finding]) -> list[System]:
    return list(dict.fromkeys(finding.system for finding in findings))


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
        *_without_width("Scores", ((finding.low, finding.high) for finding in findings)),
    ]
    notes += _absent_metrics(findings)
    if any(paper_number(spec, finding) for finding in findings):
        notes.append(f"Parentheses: numbers of {paper_source()}.")
    beside = {f.system.decoding: settings_unlike_paper(spec, f.system) for f in findings if paper_number(spec, f)}
    told = [
        f"{name} ({', '.join(f'{key} {ours}, paper {theirs}' for key, (ours, theirs) in differing.items())})"
        for name, differing in beside.items()
        if differing
    ]
    if told:
        notes.append(f"{DAGGER}: the paper's code used other settings for this method: {'; '.join(told)}.")
    return tuple(notes)


def _absent_metrics(findings: Sequence[Finding]) -> Iterator[str]:
    """One note for each reason, such as a missing file, with all metrics that are absent for it."""
    reasons = {finding.metric: finding.absent for finding in findings if finding.absent is not None}
    for reason in dict.fromkeys(reasons.values()):
        metrics = [metric for metric, other in reasons.items() if other == reason]
        if len(metrics) == 1:
            yield f"{metrics[0]} is absent: {reason}"
        else:
            yield f"{len(metrics)} metrics are absent ({', '.join(metrics)}): {reason}"


def _few_images(findings: Sequence[Finding]) -> tuple[str, ...]:
    """The note on intervals from few images, if a table has one."""
    few: dict[str, dict[str, int]] = {}
    for finding in findings:
        if 0 < finding.images < FEW_IMAGES:
            few.setdefault(finding.data, {})[finding.metric.removesuffix(f"_{finding.table}")] = finding.images
    if not few:
        return ()
    listed = "; ".join(f"{name} {_image_counts(metrics)}" for name, metrics in few.items())
    return (
        f"{DOUBLE_DAGGER}: from fewer than {FEW_IMAGES} images with scored answers ({listed}); the interval is "
        "widened, and results from so few images hardly generalize.",
    )


def _without_width(values: str, spans: Iterable[tuple[float | None, float | None]]) -> tuple[str, ...]:
    """The note on `values` whose intervals are not shown although there are several images, if a table has one."""
    if any(low is not None and high is not None and high - low < NO_WIDTH for low, high in spans):
        return (f"{values} without brackets: all images have the same value, from which no interval can be drawn.",)
    return ()


def _image_counts(metrics: Mapping[str, int]) -> str:
    """The images of each metric of a data set, or one number if it is the same for all."""
    if len(set(metrics.values())) == 1:
        return str(next(iter(metrics.values())))
    return ", ".join(f"{metric} {images}" for metric, images in metrics.items())
