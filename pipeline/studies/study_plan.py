"""`medalign study --dry-run`: check everything; count runs and trials; estimate memory, disk and time."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ...plain_text import counted, size_text
from ...progress import Progress
from ...student.families.bases import weight_files
from ...student.families.original import is_original
from ..align.align_plan import plan_align
from ..training.gpu_memory import Card
from ..training.plan import plan_training
from .study_claim import check_lock, digest_spec
from .study_spec import StudySpec
from .study_summary import seed_warnings
from .trial_choice import Chosen, chosen_trials
from .units.arm_settings import check_arm_settings
from .units.study_inputs import StudyInputs
from .units.unit_folder import UnitRecord, read_unit
from .units.unit_plan import UnitPlan, all_units
from .units.work_units import AlignUnit, MergeUnit, TrainUnit, Unit

_NO_MEMORY = ("training.seed", "training.learning_rate", "data.manifest", "data.targets", "data.anchors")
"""Settings that do not change the memory of a stage, except by the length of other questions."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StageMemory:
    """Memory of one stage of one arm."""

    stage: str
    """Regime, arm and stage."""
    kind: str
    """Of its unit of work."""
    total: int
    """Bytes."""
    trained: int
    """Bytes of trained weights, which the adapter stores."""
    sentence: str | None
    """The comparison with a GPU; None if there is none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyPlan:
    """What a study would do."""

    spec: StudySpec
    units: tuple[Unit, ...]
    """All units of the development, as if the first trial of every arm were chosen."""
    test_units: tuple[Unit, ...]
    """Those that are added when the test questions are read."""
    records: tuple[UnitRecord, ...]
    """Finished units."""
    memory: tuple[StageMemory, ...]
    tuning_runs: int
    final_runs: int
    test_read_at: str | None

    def summary(self) -> dict[str, Any]:
        """The values for the table and for --json."""
        spec, finished = self.spec, Counter(record.kind for record in self.records)
        kinds = Counter(unit.KIND for unit in self.units)
        hours, basis = self.hours_left()
        largest = max((stage.total for stage in self.memory), default=0)
        return {
            "title": spec.title,
            "spec_sha256": digest_spec(spec),
            "regimes": len(spec.regimes),
            "arms": len(spec.arms),
            "seeds": len(spec.seeds),
            "trials_per_arm": max(len(arm.trials) for arm in spec.arms),
            "tuning_runs": self.tuning_runs,
            "final_runs": self.final_runs,
            "units": {kind: f"{finished[kind]} of {number} finished" for kind, number in kinds.items()},
            "test_units": len(self.test_units),
            "test_read_at": self.test_read_at,
            "hours_left_of_one_process": hours,
            "hours_estimated_from": basis,
            "largest_memory_gib": _gib(largest),
            "memory": [f"{stage.stage}: {size_text(stage.total)}" for stage in self.memory],
            "gpu_memory": [f"{stage.stage} {stage.sentence}" for stage in self.memory if stage.sentence is not None],
            "disk_gib": _gib(self.disk()),
            "warnings": list(seed_warnings(spec)),
        }

    def hours_left(self) -> tuple[float | None, str]:
        """Hours of unfinished development units by the mean of finished ones of the same kind, and what it rests on."""
        seconds: dict[str, list[float]] = defaultdict(list)
        for record in self.records:
            seconds[record.kind].append(record.seconds)
        done = {record.digest for record in self.records}
        left = Counter(unit.KIND for unit in self.units if unit.digest not in done)
        unknown = [kind for kind in left if kind not in seconds]
        if unknown:
            return None, f"no finished unit of {', '.join(unknown)}: start the study, then run --dry-run again"
        total = sum(number * sum(seconds[kind]) / len(seconds[kind]) for kind, number in left.items())
        return round(total / 3600, 2), f"the mean of {counted(len(self.records), 'finished unit')} of the same kinds"

    def disk(self) -> int:
        """Bytes of merged bases and adapters."""
        merged = sum(_base_bytes(unit) for unit in self.units if isinstance(unit, MergeUnit))
        trained: dict[str, int] = defaultdict(int)
        for stage in self.memory:
            trained[stage.kind] = max(trained[stage.kind], stage.trained)
        kinds = Counter(unit.KIND for unit in self.units)
        return merged + sum(kinds[kind] * size for kind, size in trained.items())


def plan_study(
    spec: StudySpec, out: Path | None, card: Card | None, device: str | None, progress: Progress
) -> StudyPlan:
    """Check every input and every stage of every arm without training; finished units of `out` are counted.

    Raises:
        SettingsError: A setting of an arm, the decoding or the device is invalid.
        InputError: Data are missing or too few, or the test questions were read with another specification.
        StoreError: A store does not fit the students, or lacks images.
    """
    check_arm_settings(spec)
    lock = None if out is None else check_lock(out, spec)
    with TemporaryDirectory(prefix="medalign-study-") as folder:
        inputs = StudyInputs(Path(folder))
        plan = UnitPlan(spec, inputs, device)
        plan.require_scored("develop")
        plan.require_scored("test")
        tuning, final = plan.tuning_runs(), plan.final_runs(_choices(spec))
        units = all_units([plan.answers(run, "develop") for run in [*tuning, *final]])
        test = [unit for unit in all_units([plan.answers(run, "test") for run in final]) if unit not in units]
        records = (
            () if out is None else tuple(filter(None, (read_unit(unit.folder(out), unit.digest) for unit in units)))
        )
        memory = tuple(_memory(units, card, device, progress))
    return StudyPlan(
        spec=spec,
        units=tuple(units),
        test_units=tuple(test),
        records=records,
        memory=memory,
        tuning_runs=len(tuning),
        final_runs=len(final),
        test_read_at=None if lock is None else lock.read_at,
    )


def _choices(spec: StudySpec) -> Chosen:
    """The choices of another study, or the first trial of every arm."""
    if spec.tuning is not None and spec.tuning.study is not None:
        return chosen_trials(spec, [])
    return {
        (regime.name, arm.name): (0, arm.trials[0])
        for regime in spec.regimes
        for arm in spec.arms_of(regime)
        if arm.trials
    }


def _memory(units: Sequence[Unit], card: Card | None, device: str | None, progress: Progress) -> Iterator[StageMemory]:
    """Plan one unit of every arm and stage as its command would."""
    stages: dict[str, AlignUnit | TrainUnit] = {}
    for unit in units:
        if isinstance(unit, AlignUnit | TrainUnit):
            stages.setdefault(f"{_arm_of(unit)}: {unit.KIND}", unit)
    progress.start("planning stages", len(stages))
    known: dict[str, StageMemory] = {}
    for name, unit in stages.items():
        settings = unit.settings.model_dump(mode="json")
        key = repr(
            {f"{s}.{k}": v for s, keys in settings.items() for k, v in keys.items() if f"{s}.{k}" not in _NO_MEMORY}
        )
        if key not in known:
            known[key] = _plan(name, unit, card)
        found = known[key]
        progress.advance()
        yield replace(found, stage=name)


def _plan(name: str, unit: AlignUnit | TrainUnit, card: Card | None) -> StageMemory:
    plan = (
        plan_align(unit.placed(None), card) if isinstance(unit, AlignUnit) else plan_training(unit.placed(None), card)
    )
    trained = 4 * sum(plan.trainable.values())
    sentence = None if plan.fit is None else plan.fit.sentence()
    return StageMemory(stage=name, kind=unit.KIND, total=plan.memory.total, trained=trained, sentence=sentence)


def _arm_of(unit: Unit) -> str:
    return unit.label.rpartition(", seed ")[0]


def _base_bytes(unit: MergeUnit) -> int:
    """Size of the base whose merged copy a unit writes."""
    align = unit.needs[0]
    assert isinstance(align, AlignUnit)
    base = align.settings.student.path
    files = base.rglob("*") if is_original(base) else weight_files(base)
    return sum(path.stat().st_size for path in files if path.is_file())


def _gib(number: int) -> float:
    return round(number / 2**30, 3)
