"""Tables of a study: the values of each arm and its differences from others, from the saved answers."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import polars as pl

from ...atomic import write_whole
from ...student.file_errors import writing
from ..data import saved_tables
from ..data.manifest_images import question_groups
from ..evaluation.scoring import PREDICTIONS_FILE
from ..evaluation.statistics import Difference, holm
from .paired_seeds import Resampling, SeedDifference, seed_difference, seed_value
from .study_metrics import metric_result
from .study_spec import RegimeSpec, StudySpec
from .units.unit_plan import Part, Run, UnitPlan
from .units.unit_queue import UnitQueue

VALUES_FILE: Final = "values.parquet"
DIFFERENCES_FILE: Final = "differences.parquet"
RUNS_FILE: Final = "runs.parquet"
RESULTS_FILE: Final = "study-results.json"
"""Written last."""
RESAMPLINGS: Final = ("seeds", "images", "both")


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyTables:
    """The results on one or both splits."""

    runs: pl.DataFrame
    """One row per part, regime, arm, seed and metric."""
    values: pl.DataFrame
    """One row per part, regime, arm and metric."""
    differences: pl.DataFrame
    """One row per part, regime, arm, other arm, metric and resampling."""

    def write(self, out: Path) -> None:
        """Write all tables."""
        for name, table in ((RUNS_FILE, self.runs), (VALUES_FILE, self.values), (DIFFERENCES_FILE, self.differences)):
            with writing(out / name):
                saved_tables.write(out / name, table)


class AnswersOfRuns:
    """Saved answers with their scores, each read once."""

    def __init__(self, plan: UnitPlan, queue: UnitQueue, out: Path) -> None:
        self._plan, self._queue, self._out = plan, queue, out
        self._known: dict[str, pl.DataFrame] = {}

    def __call__(self, run: Run, part: Part) -> pl.DataFrame:
        """The rows of predictions.parquet.

        Raises:
            InputError: A file of the answers was changed after they had been scored.
        """
        unit = self._plan.answers(run, part)
        if unit.digest not in self._known:
            self._queue.require_unchanged(unit)
            path, again = (
                unit.run_folder(self._out) / PREDICTIONS_FILE,
                f"Remove {unit.folder(self._out)} and run the study again",
            )
            self._known[unit.digest] = saved_tables.read(path, again).rows
        return self._known[unit.digest]


def study_tables(spec: StudySpec, parts: Sequence[Part], runs: Sequence[Run], answers: AnswersOfRuns) -> StudyTables:
    """Every metric of every arm, and the differences from the baseline and of the primary comparisons."""
    rows: dict[str, list[dict[str, Any]]] = {"runs": [], "values": [], "differences": []}
    for part in parts:
        for regime in spec.regimes:
            of_arm = {
                arm.name: [answers(run, part) for run in runs if run.regime is regime and run.arm is arm]
                for arm in spec.arms_of(regime)
            }
            start = {"part": part, "regime": regime.name}
            rows["runs"] += _run_rows(spec, start, of_arm)
            rows["values"] += _value_rows(spec, start, of_arm)
            rows["differences"] += _difference_rows(spec, regime, start, of_arm)
    _adjust(rows["differences"])
    return StudyTables(**{name: pl.DataFrame(found, infer_schema_length=None) for name, found in rows.items()})


OfArm = Mapping[str, Sequence[pl.DataFrame]]
"""By arm: the answers of each seed."""


def _run_rows(spec: StudySpec, start: Mapping[str, Any], of_arm: OfArm) -> Iterator[dict[str, Any]]:
    for arm, seeds in of_arm.items():
        for seed, frame in zip(spec.seeds, seeds, strict=True):
            for metric in spec.metrics:
                yield {**start, "arm": arm, "seed": seed, "metric": metric, "value": metric_result(frame, metric).value}


def _value_rows(spec: StudySpec, start: Mapping[str, Any], of_arm: OfArm) -> Iterator[dict[str, Any]]:
    for arm, seeds in of_arm.items():
        for metric in spec.metrics:
            found = seed_value([metric_result(frame, metric) for frame in seeds], _resampling(spec))
            if found is not None:
                yield {
                    **start,
                    "arm": arm,
                    "metric": metric,
                    "value": found.value,
                    "low": _number(found.low),
                    "high": _number(found.high),
                    "spread": found.spread,
                    "seeds": len(found.seeds),
                }


def _difference_rows(
    spec: StudySpec, regime: RegimeSpec, start: Mapping[str, Any], of_arm: OfArm
) -> Iterator[dict[str, Any]]:
    primary = {
        (pair.arm, pair.against) for pair in spec.comparisons if (pair.regime or spec.regimes[0].name) == regime.name
    }
    arms = list(of_arm)
    pairs = {*primary, *((arm, spec.baseline) for arm in arms if arm != spec.baseline)}
    known = [pair for pair in pairs if set(pair) <= set(arms)]
    for arm, against in sorted(known, key=lambda pair: [arms.index(name) for name in pair]):
        images = _images(of_arm[arm][0])
        for metric in spec.metrics:
            before, after = ([metric_result(frame, metric) for frame in of_arm[name]] for name in (against, arm))
            found = seed_difference(before, after, images, _resampling(spec))
            if found is not None:
                about = {"arm": arm, "against": against, "metric": metric, "primary": (arm, against) in primary}
                yield from ({**start, **about, **row} for row in _intervals(found))


def _intervals(found: SeedDifference) -> Iterator[dict[str, Any]]:
    """One row per resampling; p is that of the exchange of seeds."""
    for name in RESAMPLINGS:
        gap: Difference = getattr(found, name)
        yield {
            "resampling": name,
            "difference": gap.mean,
            "low": _number(gap.low),
            "high": _number(gap.high),
            "p": found.p if name == "seeds" else None,
            "p_holm": None,
            "each": list(found.each),
        }


def _adjust(rows: Iterable[dict[str, Any]]) -> None:
    """Holm's correction over all primary comparisons of one part in the first metric of the specification."""
    first: dict[str, str] = {}
    families: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        metric = first.setdefault(row["part"], row["metric"])
        if row["primary"] and row["p"] is not None and row["metric"] == metric:
            families.setdefault(row["part"], []).append(row)
    for family in families.values():
        for row, p in zip(family, holm([row["p"] for row in family]), strict=True):
            row["p_holm"] = p


def _images(frame: pl.DataFrame) -> list[str]:
    return question_groups(frame["image_hashes"], frame["question_id"])


def _resampling(spec: StudySpec) -> Resampling:
    return Resampling(seed=spec.statistics_seed, resamples=spec.resamples)


def _number(value: float) -> float | None:
    return None if value != value else value


def write_results(out: Path, values: Mapping[str, Any]) -> None:
    """Write the summary of a study, last."""
    path = out / RESULTS_FILE
    with writing(path):
        write_whole(path, json.dumps(dict(values), indent=2, allow_nan=False) + "\n")
