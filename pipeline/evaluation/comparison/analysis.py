"""Analyze scored cells: the metrics of each system with intervals, and its differences from the baseline.

A *system* is a student with an adapter and a decoding. Its repeats (seeds) are pooled per question, so a value is the
mean over repeats. Intervals cover the choice of test images for these repeats; the spread between repeats is reported
separately.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import stdev
from typing import Literal

from ....student.metrics.result import AbsentMetric, MetricResult
from ..statistics import bootstrap_difference, bootstrap_interval, holm, pooled, randomization_test
from .cells import Cell
from .spec import ComparisonSpec

Table = Literal["strict", "reference", "reports"]
"""One table each for `strict` scores, `reference` scores, and reports."""


@dataclass(frozen=True, kw_only=True)
class ScoredCell:
    """The scores and the cost of one cell's saved answers."""

    results: tuple[MetricResult | AbsentMetric, ...]
    answers: int
    seconds: float
    """Time spent on all answers."""
    forwards: int
    """Forward passes of the language model over all answers."""
    finishes: Mapping[str, int]
    """Number of answers for each way of stopping (pipeline/runs/stop_reasons.py)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class System:
    """A row of a table."""

    student: str
    adapter: str
    decoding: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One system's value of one metric on one data set, and its difference from the baseline's."""

    system: System
    data: str
    metric: str
    absent: str | None = None
    """Why there is no value."""
    value: float | None = None
    """Mean over repeats; 1 is perfect."""
    low: float | None = None
    high: float | None = None
    questions: int = 0
    """Number of questions that the metric scores."""
    images: int = 0
    """Number of images of these questions."""
    repeats: int = 0
    spread: float | None = None
    """Standard deviation between repeats; `None` if there is only one."""
    difference: float | None = None
    """Difference from the baseline; `None` for the baseline itself, and if either is absent."""
    difference_low: float | None = None
    difference_high: float | None = None
    p: float | None = None
    """p of the paired randomization test."""
    p_holm: float | None = None
    """p adjusted for all comparisons in the same student's table."""

    @property
    def table(self) -> Table:
        return table_of(self.metric)


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """The cost of a system's answers to the questions of a data set."""

    system: System
    data: str
    answers: int
    """Over all repeats."""
    seconds: float
    """Seconds per answer."""
    forwards: float
    """Forward passes of the language model per answer."""


def table_of(metric: str) -> Table:
    """The table of a metric."""
    if metric.endswith("_strict"):
        return "strict"
    return "reference" if metric.endswith("_reference") else "reports"


def analyze(
    spec: ComparisonSpec, cells: Mapping[Cell, ScoredCell], images: Mapping[str, Sequence[str]]
) -> list[Finding]:
    """Every metric of every system on every data set; `images` has the image of each question, by data set."""
    found = list(_findings(spec, _by_system(cells), images))
    families: dict[tuple[str, Table], list[int]] = defaultdict(list)
    for place, finding in enumerate(found):
        if finding.p is not None:
            families[finding.system.student, finding.table].append(place)
    for places in families.values():
        adjusted = holm([p for place in places if (p := found[place].p) is not None])
        for place, p_holm in zip(places, adjusted, strict=True):
            found[place] = replace(found[place], p_holm=p_holm)
    return found


def costs(cells: Mapping[Cell, ScoredCell]) -> list[Cost]:
    """Seconds and forward passes per answer, by system and data set."""
    found = []
    for (system, data), repeats in _by_system(cells).items():
        answers = sum(cell.answers for cell in repeats)
        seconds, forwards = sum(cell.seconds for cell in repeats), sum(cell.forwards for cell in repeats)
        found.append(
            Cost(system=system, data=data, answers=answers, seconds=seconds / answers, forwards=forwards / answers)
        )
    return found


def _by_system(cells: Mapping[Cell, ScoredCell]) -> dict[tuple[System, str], list[ScoredCell]]:
    found: dict[tuple[System, str], list[ScoredCell]] = defaultdict(list)
    for cell, scored in cells.items():
        system = System(student=cell.student, adapter=cell.adapter, decoding=cell.decoding)
        found[system, cell.data].append(scored)
    return found


def _findings(
    spec: ComparisonSpec,
    systems: Mapping[tuple[System, str], Sequence[ScoredCell]],
    images: Mapping[str, Sequence[str]],
) -> Iterator[Finding]:
    for (system, data), repeats in systems.items():
        baseline = System(student=system.student, adapter=spec.baseline.adapter, decoding=spec.baseline.decoding)
        for index, first in enumerate(repeats[0].results):
            results = [repeat.results[index] for repeat in repeats]
            finding = _describe(spec, Finding(system=system, data=data, metric=first.name), results, images[data])
            if finding is not None and system != baseline:
                against = [repeat.results[index] for repeat in systems[baseline, data]]
                finding = _compare(spec, finding, against, results, images[data])
            if finding is not None:
                yield finding


def _describe(
    spec: ComparisonSpec, finding: Finding, results: Sequence[MetricResult | AbsentMetric], images: Sequence[str]
) -> Finding | None:
    """Value, interval and spread; `None` if the metric scores no question of this data set."""
    absent = next((result for result in results if isinstance(result, AbsentMetric)), None)
    if absent is not None:
        return replace(finding, absent=absent.reason, repeats=len(results))
    scored = [result for result in results if isinstance(result, MetricResult)]
    whole = pooled(scored)
    interval = bootstrap_interval(whole, images, seed=spec.statistics_seed, resamples=spec.resamples)
    if interval is None:
        return None
    values = [result.value for result in scored if result.value is not None]
    return replace(
        finding,
        value=whole.value,
        low=max(
            interval.low, 0.0 if (whole.parts >= 0).all() else -1.0
        ),  # with few images, intervals may exceed the range of the metric
        high=min(interval.high, 1.0),
        questions=int(whole.scored.sum()),
        images=len({image for image, scored in zip(images, whole.scored, strict=True) if scored}),
        repeats=len(scored),
        spread=stdev(values) if len(values) > 1 else None,
    )


def _compare(
    spec: ComparisonSpec,
    finding: Finding,
    baseline: Sequence[MetricResult | AbsentMetric],
    results: Sequence[MetricResult | AbsentMetric],
    images: Sequence[str],
) -> Finding:
    before = [result for result in baseline if isinstance(result, MetricResult)]
    after = [result for result in results if isinstance(result, MetricResult)]
    if len(before) < len(baseline) or len(after) < len(results):
        return finding
    sides = pooled(before), pooled(after)
    gap = bootstrap_difference(*sides, images, seed=spec.statistics_seed, resamples=spec.resamples)
    if gap is None:
        return finding
    return replace(
        finding,
        difference=gap.mean,
        difference_low=max(gap.low, -1.0),
        difference_high=min(gap.high, 1.0),
        p=randomization_test(*sides, images, seed=spec.statistics_seed, rounds=spec.rounds),
    )
