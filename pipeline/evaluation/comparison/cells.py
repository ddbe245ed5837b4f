"""Plan the cells of a specification: which student is loaded for which cells, and what determines their answers."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from itertools import product
from pathlib import Path
from typing import Any

import polars as pl

from .... import __version__
from ....choices import Dtype
from ....errors import InputError, MedalignError, SettingsError
from ....student.adapters.adapter_folder import AdapterRecord, read_adapter_record
from ....student.adapters.student_record import fingerprint_adapter
from ....student.decoding import Decoding, choose_decoding, code_of, find_method
from ....student.families.bases import fingerprint_base, read_prompt_identity, stored_dtype
from ....student.loading.adapter_loading import describe_adapter
from ....student.loading.student_loading import lora_state, trained_dtype
from ....student.prompts.prompt_identity import PromptIdentity, check_prompt
from ...data.manifest import Manifest
from ...data.samples import require_images
from ...runs.provenance import describe_prompt, describe_questions
from ..evaluate import ASKED
from .spec import AdapterSpec, ComparisonSpec, DataSpec, DecodingSpec, StudentSpec, folder_name

SEED = "seed"
"""The seed setting of a random decoding."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One evaluation: a trained student, a decoding, a data set, a seed."""

    student: str
    adapter: str
    decoding: str
    data: str
    repeat: int
    """Index in `seeds`."""
    seed: int

    @property
    def folder(self) -> Path:
        """The folder of its evaluation, relative to the comparison's folder."""
        names = (self.student, self.adapter, self.decoding, self.data, f"seed-{self.seed}")
        return Path("cells", *map(folder_name, names))

    def __str__(self) -> str:
        return f"{self.student}, {self.adapter}, {self.decoding}, {self.data}, seed {self.seed}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Loading:
    """A student that is loaded once, and all its cells."""

    student: StudentSpec
    adapter: AdapterSpec
    path: Path | None
    """Its adapter folder; `None`: only the base."""
    cells: tuple[Cell, ...]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A specification whose inputs have been found and checked."""

    spec: ComparisonSpec
    loadings: tuple[Loading, ...]
    questions: Mapping[str, Manifest]
    """By data set: its questions, in order."""
    templates: Mapping[str, str | None]
    """By student: the prompt template of all its cells; `None`: that of the base."""
    dtypes: Mapping[str, Dtype]
    """By student: the precision of all its cells."""
    identity: Mapping[str, Any]
    """What determines the answers, as a flat mapping: plans with equal identities give equal answers."""

    @property
    def cells(self) -> tuple[Cell, ...]:
        return tuple(cell for loading in self.loadings for cell in loading.cells)

    def decoding(self, cell: Cell) -> Decoding:
        """The decoding with the cell's seed and its data set's token budget."""
        return decoding_for(self.spec, cell.decoding, cell.student, cell.data, cell.seed)


def plan_comparison(spec: ComparisonSpec, *, with_students: bool = True) -> Plan:
    """Find and check all inputs of a specification before any student is loaded.

    `with_students=False` skips students and images: saved answers can be scored without them.

    Raises:
        SettingsError: A decoding or a setting of it does not exist, or adapters of a student were trained with
            different prompts.
        InputError: A manifest, image, student or adapter is missing, or an adapter was trained on another base.
    """
    chosen = _check_decodings(spec)
    questions = {data.name: _questions(data) for data in spec.data}
    identity = _identity(spec, chosen, questions)
    templates: dict[str, str | None] = {}
    dtypes: dict[str, Dtype] = {}
    if with_students:
        for asked in questions.values():
            require_images(asked)
        for student in spec.students:
            records = _adapter_records(student)
            templates[student.name], dtypes[student.name] = _template(student, records), _dtype(student, records)
            identity |= _student_identity(student, templates[student.name], dtypes[student.name])
    return Plan(
        spec=spec,
        loadings=tuple(_loadings(spec, chosen)),
        questions=questions,
        templates=templates,
        dtypes=dtypes,
        identity=identity,
    )


def decoding_for(spec: ComparisonSpec, name: str, student: str, data: str, seed: int) -> Decoding:
    """A decoding of the specification for one student and one data set, with a seed."""
    asked = next(item for item in spec.decodings if item.name == name)
    source = next(item for item in spec.data if item.name == data)
    budget = source.max_new_tokens or spec.max_new_tokens
    seeded = {SEED: seed} if _takes_seed(find_method(asked.method).settings) else {}
    return choose_decoding(asked.method, asked.settings_for(student) | seeded, max_new_tokens=budget)


def _takes_seed(settings: type[Any]) -> bool:
    return any(item.name == SEED for item in fields(settings))


Chosen = Mapping[tuple[str, str], Decoding]
"""By decoding and student."""


def _check_decodings(spec: ComparisonSpec) -> Chosen:
    """Every decoding of every student, with the first seed and the budget of the first data set."""
    found: dict[tuple[str, str], Decoding] = {}
    problems: dict[str, None] = {}
    for asked, student in product(spec.decodings, spec.students):
        if SEED in asked.settings_for(student.name):
            problems[f"{asked.name}: remove its seed, because `seeds` sets the same seed for every decoding"] = None
        try:
            chosen = decoding_for(spec, asked.name, student.name, spec.data[0].name, spec.seeds[0])
            found[asked.name, student.name] = chosen
        except MedalignError as error:
            problems[f"{asked.name}: {error}"] = None
    if problems:
        raise SettingsError(
            "invalid decodings in the comparison:\n" + "\n".join(f"  {problem}" for problem in problems)
        )
    return found


def _questions(data: DataSpec) -> Manifest:
    manifest = Manifest.read(data.manifest, data.root).split(data.split)
    frame = manifest.questions
    if data.answer_types is not None:
        frame = frame.filter(pl.col("answer_type").is_in(data.answer_types))
    if data.limit is not None:
        frame = frame.head(data.limit)
    if frame.is_empty():
        wanted = "" if data.answer_types is None else f" whose answer is {' or '.join(data.answer_types)}"
        raise InputError(f"{data.name}: {data.manifest} has no question in split {data.split}{wanted}")
    return Manifest(frame, manifest.root, manifest.source)


def _adapter_records(student: StudentSpec) -> list[AdapterRecord]:
    """The records of all its adapters; checks that each was trained on this base."""
    fingerprint = fingerprint_base(student.path)
    records: list[AdapterRecord] = []
    prompts: dict[str, PromptIdentity] = {}
    for adapter in student.adapters:
        for path in adapter.paths:
            record = read_adapter_record(path)
            if record.base_fingerprint != fingerprint:
                raise InputError(
                    f"{student.name}, {adapter.name}: {path} was trained on a base with fingerprint "
                    f"{record.base_fingerprint[:12]} ({record.base}); {student.path} has {fingerprint[:12]}"
                )
            if record.prompt is not None:
                if record.template not in prompts:
                    prompts[record.template] = read_prompt_identity(student.path, record.template)
                check_prompt(record.prompt, prompts[record.template], path, student.path)
            records.append(record)
    return records


def _template(student: StudentSpec, records: list[AdapterRecord]) -> str | None:
    """One prompt for all cells of a student."""
    trained = sorted({record.template for record in records})
    if student.template is None and len(trained) > 1:
        raise SettingsError(
            f"{student.name}: its adapters were trained with different prompt templates ({', '.join(trained)}), which "
            "is not comparable: set `template` to use one for all"
        )
    return student.template or (trained[0] if trained else None)


def _dtype(student: StudentSpec, records: list[AdapterRecord]) -> Dtype:
    """One precision for all cells of a student."""
    if student.dtype != "auto":
        return student.dtype
    trained = sorted({dtype for record in records if (dtype := trained_dtype(record)) is not None})
    if len(trained) > 1:
        raise SettingsError(
            f"{student.name}: its adapters were trained in different precisions ({', '.join(trained)}), which is not "
            "comparable: set `dtype` to use one for all"
        )
    return trained[0] if trained else stored_dtype(student.path)


def _loadings(spec: ComparisonSpec, chosen: Chosen) -> Iterator[Loading]:
    for student in spec.students:
        for adapter in student.adapters:
            repeated = len(adapter.paths) > 1
            for place, path in enumerate(adapter.paths or (None,)):
                repeats = [place] if repeated else list(range(len(spec.seeds)))
                cells = tuple(
                    Cell(
                        student=student.name,
                        adapter=adapter.name,
                        decoding=decoding.name,
                        data=data.name,
                        repeat=repeat,
                        seed=spec.seeds[repeat],
                    )
                    for data in spec.data
                    for decoding in spec.decodings
                    for repeat in repeats
                    if repeated or repeat == 0 or _takes_seed(type(chosen[decoding.name, student.name].settings))
                )
                yield Loading(student=student, adapter=adapter, path=path, cells=cells)


def _identity(spec: ComparisonSpec, chosen: Chosen, questions: Mapping[str, Manifest]) -> dict[str, Any]:
    values: dict[str, Any] = {"medalign": __version__, "seeds": list(spec.seeds), "batch_size": spec.batch_size}
    for asked, student in product(spec.decodings, spec.students):
        own = f" of {student.name}" if student.name in asked.for_students else ""
        values[f"decodings.{asked.name}{own}"] = _described(asked, chosen[asked.name, student.name])
    for data in spec.data:
        described = describe_questions(questions[data.name].frame, ASKED)
        values |= {f"data.{data.name}.{key}": value for key, value in described.items()}
        values[f"data.{data.name}.max_new_tokens"] = data.max_new_tokens or spec.max_new_tokens
    return values


def _student_identity(student: StudentSpec, template: str | None, dtype: Dtype) -> dict[str, Any]:
    section = f"students.{student.name}"
    values: dict[str, Any] = {
        f"{section}.base_fingerprint": fingerprint_base(student.path),
        f"{section}.template": template,
        f"{section}.prompt": describe_prompt(read_prompt_identity(student.path, template)),
        f"{section}.dtype": dtype,
    }
    for adapter in student.adapters:
        values[f"{section}.adapters.{adapter.name}"] = [fingerprint_adapter(path) for path in adapter.paths]
        values[f"{section}.adapter_settings.{adapter.name}"] = [describe_adapter(path) for path in adapter.paths]
        values[f"{section}.lora.{adapter.name}"] = [
            lora_state(read_adapter_record(path), keep_lora_apart=student.keep_lora_apart) for path in adapter.paths
        ]
    return values


def _described(asked: DecodingSpec, decoding: Decoding) -> dict[str, Any]:
    settings = {key: value for key, value in asdict(decoding.settings).items() if key != SEED}
    code = code_of(decoding.method)
    return {"method": asked.method, **settings, **({} if code is None else {"code_sha256": code})}
