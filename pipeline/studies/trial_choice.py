"""The choice of each arm's trial on the development split, with the scores that it was made by."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, TypeAdapter, model_validator

from ...atomic import write_whole
from ...errors import InputError
from ...saved_records import check_record
from ...student.file_errors import is_file, read_object, writing
from .study_metrics import metric_result
from .study_results import AnswersOfRuns
from .study_spec import StageSettings, StudySpec
from .units.unit_plan import Run

CHOICES_FILE: Final = "trials.json"
_AGAIN: Final = "Run the study that wrote it again"


class _Trial(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow")

    align: dict[str, Any]
    train: dict[str, Any]


class _Choice(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow")

    regime: str
    arm: str
    chosen: int
    """Number of the trial, from 1."""
    trials: list[_Trial]

    @model_validator(mode="after")
    def _check(self) -> "_Choice":
        if not 1 <= self.chosen <= len(self.trials):
            raise ValueError(f"chosen is {self.chosen}, but the trials are 1 to {len(self.trials)}")
        return self

    def number_and_settings(self) -> tuple[int, StageSettings]:
        """The chosen trial, with its number from 0."""
        trial = self.trials[self.chosen - 1]
        return self.chosen - 1, StageSettings(align=trial.align, train=trial.train)


class _Choices(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow")

    choices: list[_Choice]


_CHOICES: Final = TypeAdapter(_Choices)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialChoice:
    """The trial of one arm in one regime."""

    regime: str
    arm: str
    metric: str
    chosen: int
    """Number of the trial, from 0."""
    means: tuple[float, ...]
    """Mean of the metric over the tuning seeds, for each trial."""
    seeds: tuple[tuple[float, ...], ...]
    """The values of each trial, seed by seed."""

    @property
    def at_edge(self) -> bool:
        """Whether the first or the last of several trials won, so that settings beyond it may be better."""
        return len(self.means) > 2 and self.chosen in (0, len(self.means) - 1)

    def record(self, spec: StudySpec) -> dict[str, Any]:
        """The choice with the settings of all trials."""
        arm = next(arm for arm in spec.arms if arm.name == self.arm)
        trials = [
            {"align": dict(trial.align), "train": dict(trial.train), "mean": mean, "seeds": list(seeds)}
            for trial, mean, seeds in zip(arm.trials, self.means, self.seeds, strict=True)
        ]
        return {
            "regime": self.regime,
            "arm": self.arm,
            "metric": self.metric,
            "chosen": self.chosen + 1,
            "trials": trials,
        }


def choose_trials(spec: StudySpec, runs: Sequence[Run], answers: AnswersOfRuns) -> list[TrialChoice]:
    """The best trial of each regime and arm on the development split; of equal ones the first.

    Raises:
        InputError: The metric scores no question of the development split.
    """
    values: dict[tuple[str, str], dict[int, list[float]]] = {}
    metric = spec.tuning_metric
    for run in runs:
        value = metric_result(answers(run, "develop"), metric).value
        if value is None:
            raise InputError(
                f"{metric}, by which trials are chosen, scores no question of {run.regime.develop.manifest} "
                f"(split {run.regime.develop.split}): set tuning.metric to another one"
            )
        assert run.trial is not None
        values.setdefault((run.regime.name, run.arm.name), {}).setdefault(run.trial, []).append(value)
    found = []
    for (regime, arm), trials in values.items():
        seeds = tuple(tuple(trials[number]) for number in sorted(trials))
        means = tuple(sum(trial) / len(trial) for trial in seeds)
        found.append(
            TrialChoice(regime=regime, arm=arm, metric=metric, chosen=means.index(max(means)), means=means, seeds=seeds)
        )
    return found


Chosen = dict[tuple[str, str], tuple[int, StageSettings]]
"""By regime and arm: the number of the trial, from 0, and its settings."""


def chosen_trials(spec: StudySpec, choices: Sequence[TrialChoice]) -> Chosen:
    """The trials of all arms.

    Raises:
        InputError: They are those of another study, which has not chosen yet, or has no such arm.
    """
    if spec.tuning is not None and spec.tuning.study is not None and spec.tuning.regime is not None:
        return _read_choices(spec, spec.tuning.study, spec.tuning.regime)
    trials = {arm.name: arm.trials for arm in spec.arms}
    return {(choice.regime, choice.arm): (choice.chosen, trials[choice.arm][choice.chosen]) for choice in choices}


def saved_trials(spec: StudySpec, out: Path) -> Chosen | None:
    """The trials of all arms as the folder of a study has them; None if it has chosen none yet.

    Raises:
        InputError: The file is damaged, or see `chosen_trials`.
    """
    if spec.tuning is None or spec.tuning.study is not None:
        return chosen_trials(spec, [])
    path = out / CHOICES_FILE
    return {(one.regime, one.arm): one.number_and_settings() for one in _read(path)} if is_file(path) else None


def _read(path: Path) -> list[_Choice]:
    return check_record(_CHOICES, read_object(path), path, "choices", _AGAIN).choices


def _read_choices(spec: StudySpec, study: Path, regime: str) -> Chosen:
    """The choices of another study."""
    path = study / CHOICES_FILE
    if not is_file(path):
        raise InputError(f"tuning.study: {study} has no {CHOICES_FILE}: run that study first, without --read-test")
    found = {(regime, one.arm): one.number_and_settings() for one in _read(path) if one.regime == regime}
    missing = [arm.name for arm in spec.arms if not arm.is_base and (regime, arm.name) not in found]
    if missing:
        raise InputError(
            f"tuning.study: {study} chose no trial of {', '.join(missing)} in regime {regime!r}; it has "
            f"{', '.join(arm for _, arm in found) or 'none'}"
        )
    return found


def write_choices(out: Path, spec: StudySpec, choices: Sequence[TrialChoice]) -> None:
    """Write all trials with their scores."""
    path = out / CHOICES_FILE
    values: Mapping[str, Any] = {"choices": [choice.record(spec) for choice in choices]}
    with writing(path):
        write_whole(path, json.dumps(values, indent=2, allow_nan=False) + "\n")
