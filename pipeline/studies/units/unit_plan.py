"""From a specification to units of work: the chain of stages of each arm, regime, trial and seed."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel

from ....choices import DtypeChoice
from ....errors import InputError
from ....student.decoding import Decoding, choose_decoding
from ...align.align_settings import MAY_CHANGE as MAY_CHANGE_ALIGN
from ...align.align_settings import AlignSettings
from ...evaluation.evaluate import ASKED
from ...runs.provenance import describe_questions
from ...training.resume import MAY_CHANGE
from ...training.settings import Settings
from ..study_metrics import scores_any
from ..study_spec import ArmSpec, RegimeSpec, StageSettings, StudySpec
from .arm_settings import NO_TRIAL, align_settings, train_settings
from .study_inputs import DataStore, StudyInputs
from .work_units import AlignUnit, AnswerUnit, MergeUnit, TrainUnit, Unit

AnySettings = TypeVar("AnySettings", AlignSettings, Settings)
Part = Literal["develop", "test"]
NOWHERE = Path("drawn.parquet")
"""Placeholder of a drawn manifest, whose rows and not whose path are part of a unit."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One student that a study needs."""

    regime: RegimeSpec
    arm: ArmSpec
    trial: int | None
    """Number of the trial from 0; None if the arm has none."""
    settings: StageSettings = NO_TRIAL
    """Those of the trial."""
    seed: int

    @property
    def label(self) -> str:
        """For people."""
        return f"{self.regime.name}, {self.arm.name}, seed {self.seed}{self.trial_label}"

    @property
    def trial_label(self) -> str:
        """`, trial 2`, counted from 1; empty if there is none."""
        return "" if self.trial is None else f", trial {self.trial + 1}"


@dataclass(frozen=True, slots=True)
class _Reading:
    """How a student is loaded to answer."""

    template: str | None
    dtype: DtypeChoice
    device: str | None
    features: DataStore | None


class UnitPlan:
    """Builds the units of runs; each unit is built once."""

    def __init__(self, spec: StudySpec, inputs: StudyInputs, device: str | None) -> None:
        """`device`: None for that of the settings, else of this machine.

        Raises:
            SettingsError: The decoding method or a setting of it does not exist.
        """
        self.spec, self.inputs, self._device = spec, inputs, device
        answers = spec.answers
        self.decoding: Decoding = choose_decoding(
            answers.decode, answers.settings, max_new_tokens=answers.max_new_tokens
        )
        self._known: dict[str, Unit] = {}

    def tuning_runs(self) -> list[Run]:
        """The runs on which trials are compared, seed by seed."""
        spec = self.spec
        if spec.tuning is None:
            return []
        names = dict.fromkeys(spec.tuned_regime(regime) for regime in spec.regimes)
        regimes = [regime for regime in spec.regimes if regime.name in names]
        return [
            Run(regime=regime, arm=arm, trial=number, settings=trial, seed=seed)
            for seed in spec.tuning.seeds
            for regime in regimes
            for arm in spec.arms_of(regime)
            for number, trial in enumerate(arm.trials)
        ]

    def final_runs(self, chosen: Mapping[tuple[str, str], tuple[int, StageSettings]]) -> list[Run]:
        """The runs that are compared, seed by seed; `chosen` has the trial of each regime and arm."""
        spec = self.spec
        found = []
        for seed in spec.seeds:
            for regime in spec.regimes:
                for arm in spec.arms_of(regime):
                    number, settings = chosen.get((spec.tuned_regime(regime), arm.name), (None, NO_TRIAL))
                    found.append(Run(regime=regime, arm=arm, trial=number, settings=settings, seed=seed))
        return found

    def require_scored(self, part: Part) -> None:
        """Check that the primary metric scores a question of each regime, before anything is trained or locked.

        Raises:
            InputError: It does not.
        """
        metric = self.spec.metrics[0]
        for regime in self.spec.regimes:
            source = regime.develop if part == "develop" else regime.test
            if not scores_any(self.inputs.questions(source).manifest.frame, metric):
                raise InputError(
                    f"regimes.{regime.name}.{part}: {metric}, the primary metric, scores no question of "
                    f"{source.manifest} (split {source.split}): list another one first in metrics, or choose other "
                    "questions"
                )

    def answers(self, run: Run, part: Part) -> Unit:
        """The unit with a run's answers to the questions of one split."""
        source = run.regime.develop if part == "develop" else run.regime.test
        questions = self.inputs.questions(source)
        student, reading = self.student(run), self._reading(run)
        identity = {
            "base": self.inputs.base(run.regime.student),
            "template": reading.template,
            "dtype": self.inputs.dtype(run.regime.student, reading.device, reading.dtype),
            "features": None if reading.features is None else self.inputs.store(reading.features),
            "questions": describe_questions(questions.manifest.frame, ASKED),
            "references": questions.digest,
            "decoding": self.decoding.record(),
            "batch_size": self.spec.answers.batch_size,
        }
        return self._once(
            AnswerUnit(
                label=f"{run.label}, {part}",
                identity=identity,
                needs=() if student is None else (student,),
                base=run.regime.student,
                template=reading.template,
                dtype=reading.dtype,
                device=reading.device,
                features=reading.features,
                questions=questions,
                decoding=self.decoding,
                batch_size=self.spec.answers.batch_size,
            )
        )

    def student(self, run: Run) -> Unit | None:
        """The unit whose adapter answers; None for the base itself."""
        if run.arm.train is None:
            return None if run.arm.align is None else self._align(run)
        return self._train(run)

    def _align(self, run: Run) -> AlignUnit:
        regime, inputs = run.regime, self.inputs
        assert regime.targets is not None
        assert regime.anchors is not None
        targets, anchors = (inputs.images(source, run.seed) for source in (regime.targets, regime.anchors))
        settings = self._on_device(
            align_settings(self.spec, regime, run.arm, run.settings, run.seed, targets=NOWHERE, anchors=NOWHERE)
        )
        identity = {
            "base": inputs.base(regime.student),
            "store": inputs.store(DataStore(location=settings.data.store, hash_key=settings.data.hash_key)),
            "targets": targets.manifest.images()["image_hash"].to_list(),
            "anchors": anchors.manifest.images()["image_hash"].to_list(),
            "settings": _without(settings, MAY_CHANGE_ALIGN),
        }
        unit = self._once(
            AlignUnit(label=run.label, identity=identity, settings=settings, targets=targets, anchors=anchors)
        )
        assert isinstance(unit, AlignUnit)
        return unit

    def _train(self, run: Run) -> Unit:
        regime, inputs = run.regime, self.inputs
        questions = inputs.labels(regime.train, run.seed)
        settings = self._train_settings(run)
        identity = {
            "base": inputs.base(regime.student),
            "store": inputs.store(_store_of(settings)) if settings.alignment.uses_store else None,
            "questions": questions.digest,
            "settings": _without(settings, MAY_CHANGE),
        }
        needs = () if run.arm.align is None else (self._merge(run),)
        return self._once(
            TrainUnit(label=run.label, identity=identity, needs=needs, settings=settings, questions=questions)
        )

    def _merge(self, run: Run) -> Unit:
        return self._once(MergeUnit(label=run.label, identity={}, needs=(self._align(run),)))

    def _train_settings(self, run: Run) -> Settings:
        return self._on_device(train_settings(self.spec, run.regime, run.arm, run.settings, run.seed, manifest=NOWHERE))

    def _on_device(self, settings: AnySettings) -> AnySettings:
        """Settings with the device of the command, and the precision that `auto` is there."""
        student, training = settings.student, settings.training
        device = self._device or training.device
        dtype = self.inputs.dtype(student.path, device, student.dtype)
        update = {
            "student": student.model_copy(update={"dtype": dtype}),
            "training": training.model_copy(update={"device": device}),
        }
        return settings.model_copy(update=update)

    def _reading(self, run: Run) -> "_Reading":
        """How a run's student is loaded: as its last stage says."""
        if run.arm.train is None and run.arm.align is not None:
            of_align = self._align(run).settings
            return _Reading(of_align.student.template, of_align.student.dtype, of_align.training.device, None)
        settings = self._train_settings(run)
        is_projected = run.arm.train is not None and settings.alignment.image_tokens == "teacher"
        return _Reading(
            settings.student.template,
            settings.student.dtype,
            settings.training.device,
            _store_of(settings) if is_projected else None,
        )

    def _once(self, unit: Unit) -> Unit:
        return self._known.setdefault(unit.digest, unit)


def all_units(units: Iterable[Unit]) -> list[Unit]:
    """Units with everything that they need, each once, in an order in which they can be done."""
    found: dict[str, Unit] = {}

    def add(unit: Unit) -> None:
        for need in unit.needs:
            add(need)
        found.setdefault(unit.digest, unit)

    for unit in units:
        add(unit)
    return list(found.values())


def _store_of(settings: Settings) -> DataStore:
    return DataStore(location=str(settings.data.store), hash_key=settings.data.hash_key)


def _without(settings: BaseModel, names: set[str]) -> dict[str, Any]:
    """Settings by dotted name, without those that do not affect the result."""
    values = settings.model_dump(mode="json")
    flat = {f"{section}.{key}": value for section, keys in values.items() for key, value in keys.items()}
    return {name: value for name, value in flat.items() if name not in names}
