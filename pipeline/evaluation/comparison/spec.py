"""The specification of a comparison in YAML: typed, frozen, with all problems reported at once."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from ....choices import DtypeChoice, Reading
from ...data.manifest import AnswerType
from ...yaml_files import check_sections, read_sections, refuse_enormous

Name = Annotated[str, Field(min_length=1)]
PaperStudent = Literal["HuatuoGPT-Vision-7B", "LLaVA-Med-1.5"]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    _refuse_enormous = field_validator("*", mode="after")(refuse_enormous)


class AdapterSpec(_Section):
    """One way to train a student."""

    name: Name
    paths: tuple[Path, ...] = ()
    """Adapter folders: one, or one for each of `seeds` (trainings with those seeds); empty: only the base."""
    paper: Literal["LoRA", "MEDALIGN"] | None = None
    """The corresponding rows in the paper's tables."""


class StudentSpec(_Section):
    """One base model and its adapters."""

    name: Name
    path: Path
    """Base model folder."""
    template: str | None = None
    """Prompt template; null: that of its adapters, which must be equal."""
    dtype: DtypeChoice = "auto"
    """Precision of the forward pass; auto: that of its adapters' trainings, which must be equal, else the base's."""
    keep_lora_apart: bool = False
    """Keep LoRA separate instead of merging it into the weights."""
    adapters: tuple[AdapterSpec, ...] = (AdapterSpec(name="base"),)
    paper: PaperStudent | None = None


def _decoding(value: Any) -> Any:
    """`beam` is short for {name: beam, method: beam}."""
    if isinstance(value, str):
        return {"name": value, "method": value}
    if isinstance(value, dict) and "name" not in value and "method" in value:
        return {"name": value["method"], **value}
    return value


class DecodingSpec(_Section):
    """A decoding method with settings."""

    name: Name
    """Name in tables; default: the name of the method."""
    method: Name
    """As in `medalign student evaluate --decode`."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Settings that differ from the method's defaults: {alpha: 0.5}. `seeds` sets the seed."""
    for_students: dict[Name, dict[str, Any]] = Field(default_factory=dict)
    """Settings for single students, {NAME: {threshold: 25}}; they take precedence over `settings`."""

    def settings_for(self, student: str) -> dict[str, Any]:
        """Settings that differ from the method's defaults for this student."""
        return self.settings | self.for_students.get(student, {})


class DataSpec(_Section):
    """The questions of one data set."""

    name: Name
    manifest: Path
    root: Path | None = None
    split: str = "test"
    answer_types: tuple[AnswerType, ...] | None = None
    """Only questions with these answer types; null: all."""
    limit: int | None = Field(default=None, ge=1)
    """Only the first N of these questions."""
    max_new_tokens: int | None = Field(default=None, ge=1)
    """Maximum answer length for this data set, in tokens; null: that of the comparison. The same for every cell."""
    paper: Literal["SLAKE", "VQA-RAD", "PathVQA", "IU-Xray", "OmniMedVQA", "MIMIC-CXR"] | None = None


class BaselineSpec(_Section):
    """The cell that all others of the same student are compared with."""

    adapter: Name
    decoding: Name


class ComparisonSpec(_Section):
    """All combinations of students, their adapters, decodings, data sets and seeds."""

    title: str = "Comparison"
    students: tuple[StudentSpec, ...]
    decodings: tuple[Annotated[DecodingSpec, BeforeValidator(_decoding)], ...]
    data: tuple[DataSpec, ...]
    baseline: BaselineSpec
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**32)], ...] = (0,)
    """Seeds of the repeats, all different: repeat n uses the n-th path of an adapter, and decodes with the n-th seed.
    A cell with a single training and a deterministic decoding is run once."""
    max_new_tokens: int = Field(default=128, ge=1)
    batch_size: int = Field(default=8, ge=1)
    reading: Reading = "strict"
    """The scoring in the first table; the other one gets a table too."""
    resamples: int = Field(default=2000, ge=100)
    """Number of bootstrap resamples."""
    rounds: int = Field(default=10_000, ge=100)
    """Number of rounds of the randomization test."""
    statistics_seed: int = Field(default=0, ge=0, lt=2**32)

    @model_validator(mode="after")
    def _check_names(self) -> "ComparisonSpec":
        problems = _name_problems(self)
        if problems:
            raise ValueError("\n".join(problems))
        return self


def load_comparison(path: Path) -> ComparisonSpec:
    """Read a comparison's YAML file. Paths in it are relative to the working directory.

    Raises:
        SettingsError: The file is invalid; the message lists every problem with the invalid value.
    """
    return check_sections(path, read_sections(path, ComparisonSpec), ComparisonSpec)


def comparison_of(values: Mapping[str, Any]) -> ComparisonSpec:
    """A comparison from a mapping, with the same checks as for a file.

    Raises:
        SettingsError: The values are invalid; the message lists every problem with the invalid value.
    """
    return check_sections("spec", dict(values), ComparisonSpec)


def _name_problems(spec: ComparisonSpec) -> list[str]:
    """Empty lists, repeated names, an unknown baseline, and adapters with a wrong number of paths."""
    named: dict[str, Sequence[_Section]] = {"students": spec.students, "decodings": spec.decodings, "data": spec.data}
    named |= {f"adapters of {student.name}": student.adapters for student in spec.students}
    problems = [f"{where}: the list is empty" for where, items in {**named, "seeds": spec.seeds}.items() if not items]
    problems += [f"{where}: {name!r} appears twice" for where, items in named.items() for name in _twice(items)]
    problems += [
        f"seeds: {seed} appears {count} times; every repeat needs its own seed"
        for seed, count in Counter(spec.seeds).items()
        if count > 1
    ]
    for student in spec.students:
        adapters = [adapter.name for adapter in student.adapters]
        if spec.baseline.adapter not in adapters:
            problems.append(
                f"baseline.adapter is {spec.baseline.adapter!r}, but {student.name} has {', '.join(adapters)}"
            )
        if student.keep_lora_apart and not any(adapter.paths for adapter in student.adapters):
            problems.append(f"students.{student.name}.keep_lora_apart is True, but none of its adapters has a path")
        for adapter in student.adapters:
            if len(adapter.paths) not in (0, 1, len(spec.seeds)):
                problems.append(
                    f"{student.name}, {adapter.name}: {len(adapter.paths)} paths for {len(spec.seeds)} seeds; pass "
                    "one path, or one per seed"
                )
    students = [student.name for student in spec.students]
    problems += [
        f"decodings.{decoding.name}.for_students has {name!r}, but the students are {', '.join(students)}"
        for decoding in spec.decodings
        for name in decoding.for_students
        if name not in students
    ]
    decodings = [decoding.name for decoding in spec.decodings]
    if spec.baseline.decoding not in decodings:
        problems.append(
            f"baseline.decoding is {spec.baseline.decoding!r}, but the decodings are {', '.join(decodings)}"
        )
    return problems


def _twice(items: Iterable[Any]) -> list[str]:
    """Names that would share a folder, including on case-insensitive file systems."""
    names: dict[str, list[str]] = defaultdict(list)
    for item in items:
        names[folder_name(item.name).casefold()].append(folder_name(item.name))
    return [found[0] for found in names.values() if len(found) > 1]


def folder_name(name: str) -> str:
    """Convert a name to a folder name: letters, digits, periods and dashes."""
    return re.sub(r"[^\w.]+", "-", name).strip("-.") or "-"
