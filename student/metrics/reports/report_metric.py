"""What a report metric is: a name, what it measures, and a score of predicted against reference reports."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ....errors import MedalignError
from ..result import AbsentMetric, MetricResult

Scorer = Callable[[Sequence[str], Sequence[str]], MetricResult]


@dataclass(frozen=True, slots=True)
class MissingAsset:
    """A model or data file that is not on this machine, and how to bring it."""

    reason: str


Assets = Mapping[str, Path | MissingAsset]
"""Name of an asset -> its folder, or why there is none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportMetric:
    """One metric over pairs of reports; higher is better and 1 is perfect, except where `what` says otherwise."""

    name: str
    what: str
    """One line for people: what is computed, and by whose definition."""
    assets: tuple[str, ...] = ()
    """The models and data files that it needs."""
    absent: str | None = None
    """Why it cannot be computed here; `None`: it can."""
    compute: Scorer

    def score(self, predictions: Sequence[str], references: Sequence[str]) -> MetricResult | AbsentMetric:
        """Score reports in pairs; a metric whose files turn out unreadable is absent with that reason.

        A long evaluation keeps its other numbers then, and none is invented.

        Raises:
            ValueError: there are more of one than of the other.
        """
        if len(predictions) != len(references):
            raise ValueError(f"{len(predictions)} predicted reports, but {len(references)} references")
        if self.absent is not None:
            return AbsentMetric(name=self.name, reason=self.absent)
        try:
            return self.compute(predictions, references)
        except MedalignError as error:
            return AbsentMetric(name=self.name, reason=str(error))
