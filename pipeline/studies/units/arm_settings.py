"""The settings of one stage of an arm: those of the study, the regime, the arm and the trial, one over the other."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ....errors import SettingsError
from ...align.align_settings import AlignSettings, load_align_settings
from ...training.settings import Settings
from ...training.settings_loading import settings_of
from ..study_spec import ArmSpec, RegimeSpec, StageSettings, StudySpec

_SET_BY_STUDY: Final = {
    "train": (
        "student.path",
        "data.manifest",
        "data.root",
        "data.train_split",
        "data.validation_split",
        "training.seed",
        "training.patience",
        "training.eval_steps",
    ),
    "align": (
        "student.path",
        "data.targets",
        "data.targets_split",
        "data.targets_root",
        "data.anchors",
        "data.anchors_split",
        "data.anchors_root",
        "training.seed",
    ),
}
NO_TRIAL: Final = StageSettings()


def align_settings(
    spec: StudySpec, regime: RegimeSpec, arm: ArmSpec, trial: StageSettings, seed: int, *, targets: Path, anchors: Path
) -> AlignSettings:
    """The settings of an arm's `student align`.

    Raises:
        SettingsError: A setting does not exist or is invalid.
    """
    values = {"report.images": 0} | _merged(spec, regime, arm, trial, "align")  # the study has its own report
    values |= {"data.targets": str(targets), "data.anchors": str(anchors)}
    if regime.geometry is not None:
        values = {"data.geometry": regime.geometry} | values
    return load_align_settings(_started(regime, seed), None, values, resume=False)


def train_settings(
    spec: StudySpec, regime: RegimeSpec, arm: ArmSpec, trial: StageSettings, seed: int, *, manifest: Path
) -> Settings:
    """The settings of an arm's `student train`; the base is that of the regime.

    Raises:
        SettingsError: A setting does not exist or is invalid.
    """
    values = _merged(spec, regime, arm, trial, "train")
    values |= {"data.manifest": str(manifest), "data.train_split": regime.train.split}
    if regime.geometry is not None:
        values = {"alignment.geometry": regime.geometry} | values
    return settings_of(_started(regime, seed), values)


def check_arm_settings(spec: StudySpec) -> None:
    """Check the settings of every arm, trial and regime, before anything is read.

    Raises:
        SettingsError: Settings do not exist, are invalid, or are set by the study; the message lists all.
    """
    places: dict[str, list[str]] = {}
    for regime in spec.regimes:
        for arm in spec.arms_of(regime):
            for number, trial in enumerate(arm.trials or (NO_TRIAL,)):
                where = f"{arm.name}{f', trial {number + 1}' if arm.trials else ''}, regime {regime.name}"
                for text in _problems(spec, regime, arm, trial):
                    places.setdefault(text, []).append(where)
    if places:
        lines = (f"  {found[0]}{_more(found)}: {text}" for text, found in places.items())
        raise SettingsError("invalid settings of arms:\n" + "\n".join(lines))


def _more(places: Sequence[str]) -> str:
    return f" (and in {len(places) - 1} more)" if len(places) > 1 else ""


def _problems(spec: StudySpec, regime: RegimeSpec, arm: ArmSpec, trial: StageSettings) -> Iterator[str]:
    for stage, names in _SET_BY_STUDY.items():
        if getattr(arm, stage) is not None:
            own = _merged(spec, regime, arm, trial, stage)
            yield from (f"{stage} sets {name}, which the study sets itself" for name in names if name in own)
    nowhere = Path("manifest.parquet")
    try:
        if arm.align is not None:
            align_settings(spec, regime, arm, trial, spec.seeds[0], targets=nowhere, anchors=nowhere)
        if arm.train is not None:
            train_settings(spec, regime, arm, trial, spec.seeds[0], manifest=nowhere)
    except SettingsError as error:
        yield " ".join(str(error).split())


def _started(regime: RegimeSpec, seed: int) -> Mapping[str, Any]:
    data = {"store": regime.store, "hash_key": None if regime.hash_key is None else str(regime.hash_key)}
    student = {"path": str(regime.student), "template": regime.template}
    return {"student": student, "data": data, "training": {"seed": seed}}


def _merged(spec: StudySpec, regime: RegimeSpec, arm: ArmSpec, trial: StageSettings, stage: str) -> dict[str, Any]:
    """Settings by dotted name; later ones take precedence."""
    levels = (spec.settings, regime.settings, arm, trial)
    found: dict[str, Any] = {}
    for level in levels:
        found |= getattr(level, stage) or {}
    return found
