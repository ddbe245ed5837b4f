"""The summary of a study, in study-results.json: what was run, primary values and differences, and warnings."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import polars as pl

from ...plain_text import counted
from ...teacher_cache.sharing.data_use_gate import strictest
from ..data.manifest import Manifest
from ..evaluation.statistics import CONFIDENCE, few_images_warnings
from .study_claim import digest_spec, read_lock
from .study_results import StudyTables
from .study_spec import StudySpec
from .trial_choice import TrialChoice
from .units.unit_folder import UnitRecord
from .units.unit_plan import Part, Run, UnitPlan, all_units
from .units.unit_queue import UnitQueue

_SHOWN: Final = ("regime", "arm", "against", "difference", "low", "high", "p", "p_holm", "primary")


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyRuns:
    """The runs of a study, and the splits whose questions were answered."""

    tuning: Sequence[Run]
    final: Sequence[Run]
    parts: Sequence[Part]


def study_summary(
    plan: UnitPlan, queue: UnitQueue, runs: StudyRuns, choices: Sequence[TrialChoice], tables: StudyTables, out: Path
) -> dict[str, Any]:
    """The values for the table, the page and --json, of JSON's types."""
    spec, lock, shown = plan.spec, read_lock(out), runs.parts[-1]
    answers = [plan.answers(run, "develop") for run in runs.tuning]
    answers += [plan.answers(run, part) for part in runs.parts for run in runs.final]
    units = all_units(answers)
    records = [record for unit in units if (record := queue.finished(unit)) is not None]
    return {
        "title": spec.title,
        "spec_sha256": digest_spec(spec),
        "test_read_at": None if lock is None else lock.read_at,
        "shown": shown,
        "seeds": list(spec.seeds),
        "units": len(units),
        "unit_hours": round(sum(record.seconds for record in records) / 3600, 3),
        "trials": {f"{choice.regime}, {choice.arm}": choice.chosen + 1 for choice in choices},
        "metric": spec.metrics[0],
        "baseline": spec.baseline,
        "values": _values(tables.values, shown, spec.metrics[0]),
        "differences": list(_differences(tables.differences, shown, spec.metrics[0])),
        "data_use": strictest([one.data_use for one in _questions(plan)]),
        "warnings": [
            *seed_warnings(spec),
            *_test_warnings(plan),
            *_code_warnings(records),
            *_trial_warnings(choices),
            *_image_warnings(plan),
        ],
    }


def _values(values: pl.DataFrame, part: Part, metric: str) -> dict[str, dict[str, float]]:
    """The mean of each arm, by regime."""
    found: dict[str, dict[str, float]] = {}
    for row in values.iter_rows(named=True):
        if (row["part"], row["metric"]) == (part, metric):
            found.setdefault(row["regime"], {})[row["arm"]] = row["value"]
    return found


def _differences(differences: pl.DataFrame, part: Part, metric: str) -> Iterator[dict[str, Any]]:
    """Differences with their intervals over seeds and images, and the p of seeds."""
    tests: dict[tuple[str, ...], tuple[float | None, float | None]] = {}
    rows = [row for row in differences.iter_rows(named=True) if (row["part"], row["metric"]) == (part, metric)]
    for row in rows:
        if row["resampling"] == "seeds":
            tests[row["regime"], row["arm"], row["against"]] = row["p"], row["p_holm"]
    for row in rows:
        if row["resampling"] == "both":
            p, p_holm = tests[row["regime"], row["arm"], row["against"]]
            yield {name: row[name] for name in _SHOWN} | {"p": p, "p_holm": p_holm}


def _questions(plan: UnitPlan) -> Iterator[Manifest]:
    for regime in plan.spec.regimes:
        yield from (plan.inputs.questions(source).manifest for source in (regime.develop, regime.test))
        yield from _training_sets(plan, regime.name)


def _training_sets(plan: UnitPlan, regime: str) -> Iterator[Manifest]:
    source = next(item.train for item in plan.spec.regimes if item.name == regime)
    if source.labels != 0:
        yield from (plan.inputs.labels(source, seed).manifest for seed in plan.spec.seeds)


def seed_warnings(spec: StudySpec) -> Iterator[str]:
    """Seeds that are too few for their p, or that also chose the trials."""
    smallest = 2 / 2 ** len(spec.seeds)
    if smallest > 1 - CONFIDENCE:
        yield (
            f"with {counted(len(spec.seeds), 'seed')}, p is at least {smallest:g}, and intervals over seeds are wide "
            "or missing: use 6 seeds or more (docs/study.md)"
        )
    if both := sorted(set(spec.seeds) & set(() if spec.tuning is None else spec.tuning.seeds)):
        yield (
            f"seeds and tuning.seeds share {', '.join(map(str, both))}: the chosen trials fit these training sets, so "
            "differences may be too large. Use other seeds for tuning"
        )


def _test_warnings(plan: UnitPlan) -> Iterator[str]:
    """Regimes with test questions about few images."""
    for regime in plan.spec.regimes:
        images = len(_images(plan.inputs.questions(regime.test).manifest))
        if images == 0:  # text only
            continue
        yield from (f"{regime.name}, test: {text}" for text in few_images_warnings(images))


def _image_warnings(plan: UnitPlan) -> Iterator[str]:
    """Images of development and test questions that are trained on, or in both."""
    for regime in plan.spec.regimes:
        develop, test = (_images(plan.inputs.questions(source).manifest) for source in (regime.develop, regime.test))
        train: set[str] = set().union(*(_images(drawn) for drawn in _training_sets(plan, regime.name)))
        for title, one, other in (
            ("test questions are among those of training sets", test, train),
            ("development questions are among those of training sets", develop, train),
            ("test questions are among those of the development", test, develop),
        ):
            if both := len(one & other):
                yield f"{regime.name}: {counted(both, 'image')} of {len(one)} of the {title}"


def _images(manifest: Manifest) -> set[str]:
    return set(manifest.images()["image_hash"].drop_nulls().to_list())


def _code_warnings(records: Sequence[UnitRecord]) -> Iterator[str]:
    code = sorted({record.versions.get("code", "unknown") for record in records})
    if len(code) > 1:
        yield f"units were done with {len(code)} versions of medalign's code: {', '.join(code)}"


def _trial_warnings(choices: Sequence[TrialChoice]) -> Iterator[str]:
    edges = [f"{choice.arm} (trial {choice.chosen + 1} of {len(choice.means)})" for choice in choices if choice.at_edge]
    if edges:
        yield f"the best trial is the first or the last one, so others may be better: {', '.join(edges)}"
