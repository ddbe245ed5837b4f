"""Definition of a report metric: name, description, and a score of predicted and reference reports."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ....errors import MedalignError
from ..result import AbsentMetric, MetricResult

Scorer = Callable[[Sequence[str], Sequence[str]], MetricResult]


@dataclass(frozen=True, slots=True)
class MissingAsset:
    """A missing model or data file, and how to get it."""

    reason: str


Assets = Mapping[str, Path | MissingAsset]
"""Name of an asset -> its folder, or the reason why it is missing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportMetric:
    """A metric over pairs of reports; higher is better and 1 is perfect, unless `what` says otherwise."""

    name: str
    what: str
    """One-line description: what is computed, and whose definition is used."""
    assets: tuple[str, ...] = ()
    """Models and data files that the metric needs."""
    absent: str | None = None
    """Why the metric cannot be computed; `None` if it can."""
    compute: Scorer

    def score(self, predictions: Sequence[str], references: Sequence[str]) -> MetricResult | AbsentMetric:
        """Score pairs of reports; a metric with unreadable files is absent, with that reason.

        So a long evaluation keeps its other metrics, and no value is made up.

        Raises:
            ValueError: the numbers of predictions and references differ.
        """
        if len(predictions) != len(references):
            raise ValueError(f"{len(predictions)} predicted reports, but {len(references)} references")
        if self.absent is not None:
            return AbsentMetric(name=self.name, reason=self.absent)
        try:
            return self.compute(predictions, references)
        except MedalignError as error:
            return AbsentMetric(name=self.name, reason=str(error))
