"""The specification of a study in YAML: typed, frozen, with all problems reported at once."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from ...choices import Geometry
from ..data.manifest import AnswerType
from ..yaml_files import check_sections, read_sections, refuse_enormous
from .study_metrics import METRIC_NAMES

Name = Annotated[str, Field(min_length=1, max_length=100)]
Seed = Annotated[int, Field(ge=0, lt=2**32, strict=True)]


def flat_settings(values: Any) -> Any:
    """Settings by dotted name; sections may be nested: `{alignment: {beta: 0.1}}` is `{alignment.beta: 0.1}`.

    Raises:
        ValueError: A setting is there in both forms.
    """
    if not isinstance(values, Mapping):
        return values
    found: dict[Any, Any] = {}
    for name, value in values.items():
        inner = flat_settings(value)
        more = {f"{name}.{key}": item for key, item in inner.items()} if isinstance(value, Mapping) else {name: value}
        if repeated := [key for key in more if key in found]:
            raise ValueError(f"{', '.join(repeated)} is set twice, once as a section")
        found |= more
    return found


Overrides = Annotated[dict[Name, Any], BeforeValidator(flat_settings)]
"""Settings by dotted name, as in `--set`."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    _refuse_enormous = field_validator("*", mode="after")(refuse_enormous)


class ImageSource(_Section):
    """Images of a manifest, of which only the images are used."""

    manifest: Path
    root: Path | None = None
    """Folder that image paths start from; null: as the manifest says."""
    split: str | None = None
    """null: all rows."""
    images: int | None = Field(default=None, ge=4)
    """Images drawn for each seed; null: all."""


class QuestionSource(_Section):
    """Questions of one split of a manifest."""

    manifest: Path
    root: Path | None = None
    split: str
    answer_types: tuple[AnswerType, ...] | None = None
    """null: all."""
    per_image: int | None = Field(default=None, ge=1)
    """Most questions about one image, chosen at random; null: all of them."""
    limit: int | None = Field(default=None, ge=1)
    """Only the first N of these questions."""


class LabelSource(QuestionSource):
    """Questions with answers, from which a training set is drawn for each seed."""

    labels: int | None = Field(default=None, ge=0)
    """Questions in a training set, drawn image by image; null: all, the same for every seed. 0: none."""


class StageSettings(_Section):
    """Settings of both stages that differ from their defaults."""

    align: Overrides = {}
    """Of `student align`."""
    train: Overrides = {}
    """Of `student train`."""


class RegimeSpec(_Section):
    """The conditions of a study: a base, a store, and data."""

    name: Name
    student: Path
    """Base model folder."""
    template: str | None = None
    """Prompt template; null: the base's own."""
    store: str | None = None
    """Teacher store, a folder or a URL; null: no arm needs one."""
    hash_key: Path | None = None
    geometry: Geometry | None = None
    """How the store's teacher must have seen the images; null: as the presets say."""
    train: LabelSource
    develop: QuestionSource
    """Questions on which trials are compared."""
    test: QuestionSource
    """Questions that are read once."""
    targets: ImageSource | None = None
    """Images of `student align`, which needs both."""
    anchors: ImageSource | None = None
    settings: StageSettings = StageSettings()
    arms: Annotated[tuple[Name, ...], Field(min_length=1)] | None = None
    """Names of the arms to run; null: all."""


class ArmSpec(_Section):
    """One way to make a student of the base."""

    name: Name
    align: Overrides | None = None
    """Settings of `student align`; null: this stage is skipped. Its merged result is then the base."""
    train: Overrides | None = None
    """Settings of `student train`; null: this stage is skipped."""
    trials: tuple[StageSettings, ...] = ()
    """Settings that are tried on the development split."""

    @property
    def is_base(self) -> bool:
        """Whether nothing is trained."""
        return self.align is None and self.train is None


class TuningSpec(_Section):
    """How trials are compared on the development split."""

    metric: str | None = None
    """null: the first of `metrics`."""
    seeds: tuple[Seed, ...] = ()
    """Each trial is the mean over these seeds."""
    regime: Name | None = None
    """Regime whose choice holds for all; null: every regime chooses for itself."""
    study: Path | None = None
    """Folder of another study that chose already: its choices for `regime` are used, and arms have no trials."""


class AnswerSpec(_Section):
    """How questions are answered."""

    batch_size: int = Field(default=8, ge=1)
    max_new_tokens: int = Field(default=128, ge=1)
    decode: Name = "greedy"
    settings: dict[Name, Any] = Field(default_factory=dict)
    """Settings of the decoding method."""


class ComparisonPair(_Section):
    """A comparison that was chosen before the results were known."""

    arm: Name
    against: Name
    regime: Name | None = None
    """null: the first."""


class StudySpec(_Section):
    """Arms x regimes x seeds."""

    title: str = "Study"
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)]
    regimes: Annotated[tuple[RegimeSpec, ...], Field(min_length=1)]
    arms: Annotated[tuple[ArmSpec, ...], Field(min_length=1)]
    baseline: Name
    """The arm that all others are compared with."""
    metrics: Annotated[tuple[str, ...], Field(min_length=1)] = ("all_strict", "open_strict", "closed_strict")
    """The first one is the primary metric."""
    settings: StageSettings = StageSettings()
    """Of every regime and arm."""
    tuning: TuningSpec | None = None
    comparisons: tuple[ComparisonPair, ...] = ()
    """Primary comparisons; they share a correction for their number."""
    answers: AnswerSpec = AnswerSpec()
    resamples: int = Field(default=2000, ge=100)
    statistics_seed: Seed = 0

    @model_validator(mode="after")
    def _check(self) -> "StudySpec":
        if problems := [*_names(self), *_comparisons(self), *_trials(self), *_stages(self)]:
            raise ValueError("\n".join(problems))
        return self

    def arms_of(self, regime: RegimeSpec) -> tuple[ArmSpec, ...]:
        """The arms that a regime runs, in the order of the specification."""
        return tuple(arm for arm in self.arms if regime.arms is None or arm.name in regime.arms)

    @property
    def tuning_metric(self) -> str:
        """The metric by which trials are compared."""
        return (self.tuning.metric if self.tuning else None) or self.metrics[0]

    def tuned_regime(self, regime: RegimeSpec) -> str:
        """The name of the regime whose trials choose the settings of a regime."""
        return regime.name if self.tuning is None or self.tuning.regime is None else self.tuning.regime


def load_study(path: Path) -> StudySpec:
    """Read the YAML file of a study. Paths in it are relative to the working directory.

    Raises:
        SettingsError: The file is invalid; the message lists every problem with the invalid value.
    """
    return check_sections(path, read_sections(path, StudySpec), StudySpec)


def study_of(values: Mapping[str, Any]) -> StudySpec:
    """A study from a mapping, with the same checks as for a file.

    Raises:
        SettingsError: The values are invalid; the message lists every problem with the invalid value.
    """
    return check_sections("spec", dict(values), StudySpec)


_FOLDER: Final = re.compile(r"[^\w.]+")


def folder_part(name: str) -> str:
    """A name as part of a path: letters, digits, periods and dashes."""
    return _FOLDER.sub("-", name).strip("-.") or "-"


def _names(spec: StudySpec) -> Iterator[str]:
    """Repeated and unknown names."""
    arms, regimes = [arm.name for arm in spec.arms], [regime.name for regime in spec.regimes]
    for title, names in (("arms", arms), ("regimes", regimes)):
        parts = Counter(folder_part(name).casefold() for name in names)
        yield from (f"{title}: {name!r} appears {number} times" for name, number in parts.items() if number > 1)
    tuned = spec.tuning.seeds if spec.tuning else ()
    for title, values in (("seeds", spec.seeds), ("tuning.seeds", tuned), ("metrics", spec.metrics)):
        counts = Counter[object](values)
        yield from (f"{title}: {value} appears {number} times" for value, number in counts.items() if number > 1)
    used = [
        ("baseline", spec.baseline),
        *((f"regimes.{r.name}.arms", arm) for r in spec.regimes for arm in r.arms or ()),
    ]
    used += [("comparisons", name) for pair in spec.comparisons for name in (pair.arm, pair.against)]
    yield from (
        f"{where}: there is no arm {name!r}; the arms are {', '.join(arms)}" for where, name in used if name not in arms
    )
    wanted = [("comparisons", pair.regime) for pair in spec.comparisons if pair.regime is not None]
    if spec.tuning and spec.tuning.regime and spec.tuning.study is None:
        wanted.append(("tuning.regime", spec.tuning.regime))
    yield from (
        f"{where}: there is no regime {name!r}; the regimes are {', '.join(regimes)}"
        for where, name in wanted
        if name not in regimes
    )
    metrics = [("metrics", name) for name in spec.metrics]
    metrics += [("tuning.metric", spec.tuning.metric)] if spec.tuning and spec.tuning.metric else []
    yield from (
        f"{where}: there is no metric {name!r}; the metrics are {', '.join(METRIC_NAMES)}"
        for where, name in metrics
        if name not in METRIC_NAMES
    )


def _comparisons(spec: StudySpec) -> Iterator[str]:
    """Comparisons that compare nothing, something twice, or an arm that the regime does not run."""
    regimes = {regime.name: {arm.name for arm in spec.arms_of(regime)} for regime in spec.regimes}
    known = {arm.name for arm in spec.arms}
    for name, arms in regimes.items():
        if spec.baseline in known and spec.baseline not in arms:
            yield f"regimes.{name}: does not run the baseline {spec.baseline!r}, with which its arms are compared"
    seen = set()
    for pair in spec.comparisons:
        regime = pair.regime or spec.regimes[0].name
        what, key = f"{pair.arm!r} against {pair.against!r}", (regime, frozenset((pair.arm, pair.against)))
        if pair.arm == pair.against:
            yield f"comparisons: {pair.arm!r} is compared with itself"
        elif key in seen:
            yield f"comparisons: {what} in regime {regime!r} appears twice, perhaps the other way around"
        seen.add(key)
        for name in (pair.arm, pair.against):
            if name in known and name not in regimes.get(regime, known):
                yield f"comparisons: {what}: regime {regime!r} does not run {name!r}"


def _trials(spec: StudySpec) -> Iterator[str]:
    """Arms with more or fewer trials than others, which would be tuned better or worse."""
    numbers = {arm.name: len(arm.trials) for arm in spec.arms if not arm.is_base}
    if spec.tuning is None or spec.tuning.study is not None:
        why = "there is no `tuning`" if spec.tuning is None else "tuning.study takes the choices of another study"
        yield from (f"arms.{name}: has trials, but {why}" for name, number in numbers.items() if number)
    elif not spec.tuning.seeds:
        yield "tuning.seeds: missing"
    elif len(set(numbers.values())) > 1 or 0 in numbers.values():
        listed = ", ".join(f"{name} {number}" for name, number in numbers.items())
        yield f"trials: every arm that is trained needs the same number, at least 1; now {listed}"
    if spec.tuning is not None and spec.tuning.study is not None and spec.tuning.regime is None:
        yield "tuning.regime: missing; name the regime of tuning.study whose choices are used"
    for arm in spec.arms:
        for number, trial in enumerate(arm.trials):
            if trial in arm.trials[:number]:
                yield f"arms.{arm.name}: trials {arm.trials.index(trial) + 1} and {number + 1} are the same"
        if arm.is_base and arm.trials:
            yield f"arms.{arm.name}: has trials, but neither align nor train"
        for stage in ("align", "train"):
            if getattr(arm, stage) is None and any(getattr(trial, stage) for trial in arm.trials):
                yield f"arms.{arm.name}.trials: set {stage}, but the arm has no {stage}"


def _stages(spec: StudySpec) -> Iterator[str]:
    """Arms whose stages lack data in a regime, and regimes that lack an arm that is needed."""
    for regime in spec.regimes:
        arms = spec.arms_of(regime)
        for arm in arms:
            if arm.align is not None and (regime.targets is None or regime.anchors is None):
                yield f"regimes.{regime.name}: arm {arm.name!r} aligns, but targets or anchors are missing"
            if arm.train is not None and regime.train.labels == 0:
                yield f"regimes.{regime.name}: arm {arm.name!r} trains, but train.labels is 0: name other arms"
        if spec.tuning is None or spec.tuning.study is not None:
            continue
        chosen = next((item for item in spec.regimes if item.name == spec.tuned_regime(regime)), regime)
        tuned = [arm.name for arm in spec.arms_of(chosen)]
        missing = [arm.name for arm in arms if not arm.is_base and arm.name not in tuned]
        if missing:
            yield f"tuning.regime: does not run {', '.join(missing)}, which regime {regime.name!r} does"
