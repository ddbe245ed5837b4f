"""The students of an inspection: the base, and the base with each adapter."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import InputError
from ...student.adapters.adapter_folder import ADAPTER_RECORD, read_adapter_record
from ...student.file_errors import is_file
from ...student.folders.student_facts import StudentFacts
from ...student.loading.student_loading import find_base
from ..devices import pick_device
from ..evaluation.batches.batch_work import StudentRecipe
from .inspect_request import InspectRequest

BASE = "base"


@dataclass(frozen=True, kw_only=True, slots=True)
class Arm:
    """One student of an inspection."""

    name: str
    """`base`, or the name of the adapter's folder; unique, and the key in every table."""
    adapter: Path | None
    recipe: StudentRecipe
    facts: StudentFacts

    @property
    def aligned_layers(self) -> tuple[int, ...]:
        """Zero-based aligned layers; empty without an adapter."""
        return () if self.facts.adapter is None else self.facts.adapter.layers


def find_arms(request: InspectRequest) -> tuple[Arm, ...]:
    """The base first, then every adapter, in order. Nothing is loaded.

    Raises:
        InputError: A folder cannot be read, or an adapter is listed twice or has another base.
        SettingsError: The device or template does not exist.
    """
    base, adapters = find_folders(request.student, request.adapters)
    template = request.template
    if template is None and adapters:  # the same prompt before and after
        template = read_adapter_record(adapters[0]).template
    device = pick_device(request.device)
    arms = []
    for name, adapter in [(BASE, None), *zip(arm_names(adapters), adapters, strict=True)]:
        recipe = StudentRecipe(folder=base, adapter=adapter, device=device, dtype=request.dtype, template=template)
        arms.append(Arm(name=name, adapter=adapter, recipe=recipe, facts=recipe.facts()))
    return tuple(arms)


def find_folders(student: Path, adapters: Sequence[Path]) -> tuple[Path, tuple[Path, ...]]:
    """The base folder and the adapters; a student that is an adapter is the first of them.

    Raises:
        InputError: The record of the student cannot be read, its base is missing, or an adapter is listed twice.
    """
    base = student
    if is_file(student / ADAPTER_RECORD):
        base = find_base(student, read_adapter_record(student))
        adapters = (student, *adapters)
    seen: set[Path] = set()
    for folder in adapters:
        if folder.resolve() in seen:
            raise InputError(f"the adapter {folder} is listed twice: pass each adapter once")
        seen.add(folder.resolve())
    return base, tuple(adapters)


def arm_names(adapters: Sequence[Path]) -> list[str]:
    """The folder names of adapters; equal ones, and one with the name of the base, get a number."""
    found: list[str] = []
    for name in (folder.resolve().name for folder in adapters):
        number, candidate = 2, name
        while candidate in (BASE, *found):
            candidate, number = f"{name} ({number})", number + 1
        found.append(candidate)
    return found
