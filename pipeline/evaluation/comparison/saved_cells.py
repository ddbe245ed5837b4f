"""Check saved cells: whether they are complete and match the comparison."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ....errors import InputError
from ....plain_text import counted
from ....student.file_errors import is_file
from ...runs.answer_log import RUN_FILE, LoggedAnswer
from ...runs.run_differences import differences
from ...runs.run_record import read_run
from ..scoring import METRICS_FILE, read_answers
from .cells import Cell, Plan
from .claim import COMPARISON_FILE
from .spec import ComparisonSpec

_AGAIN = "Copy the folder again, or start a new comparison with another --out"


def is_finished(out: Path, cell: Cell) -> bool:
    """Whether a cell was answered and scored."""
    return is_file(out / cell.folder / METRICS_FILE)


def saved_answers(plan: Plan, cell: Cell, out: Path, identity: Mapping[str, Any]) -> list[LoggedAnswer]:
    """The answers of a finished cell.

    Raises:
        InputError: They are for other questions, or from another student or decoding.
    """
    run = check_cell(plan, cell, out, identity)
    return read_answers(out / cell.folder, run, plan.questions[cell.data].frame["question_id"].to_list())


def check_cell(plan: Plan, cell: Cell, out: Path, identity: Mapping[str, Any]) -> dict[str, Any]:
    """The run recorded in a finished cell's folder, which must match the cell.

    Raises:
        InputError: It has another student, adapter or decoding, or other questions.
    """
    folder = out / cell.folder
    run, expected = read_run(folder / RUN_FILE), expected_run(plan, cell, identity)
    listed = differences({key: run[key] for key in expected if key in run}, expected, "expected")
    if listed:
        raise InputError(
            f"{folder} does not belong to the cell {cell}: {'; '.join(listed)}. Remove it and continue with --resume"
        )
    return run


def check_trainings(spec: ComparisonSpec, identity: Mapping[str, Any]) -> None:
    """Check that a comparison has no training twice, which would count as two with no difference.

    Args:
        spec: The comparison.
        identity: What determined its answers; in older comparisons without the settings of adapters.

    Raises:
        InputError: Two paths have equal weights and settings.
    """
    for student in spec.students:
        seen: dict[str, str] = {}
        for adapter in student.adapters:
            section = f"students.{student.name}"
            digests = _trainings(identity, f"{section}.adapters.{adapter.name}") or []
            key = f"{section}.adapter_settings.{adapter.name}"
            settings = _trainings(identity, key) or [None] * len(digests)
            if len(settings) != len(digests):
                raise InputError(
                    f"{COMPARISON_FILE}: {key} has {counted(len(settings), 'entry', 'entries')}, expected "
                    f"{len(digests)}. {_AGAIN}"
                )
            for place, what in enumerate(zip(digests, settings, strict=True)):
                path = adapter.paths[place] if place < len(adapter.paths) else f"path {place + 1}"
                name, training = f"{adapter.name} ({path})", json.dumps(what, sort_keys=True)
                if training in seen:
                    digest = str(digests[place])[:12]
                    raise InputError(
                        f"{student.name}: {seen[training]} and {name} are the same training (digest {digest}), which "
                        "would be counted twice: use a separate training for each repeat and each adapter"
                    )
                seen[training] = name


def expected_run(plan: Plan, cell: Cell, identity: Mapping[str, Any]) -> dict[str, Any]:
    """The run that the evaluation of a cell must have recorded.

    Args:
        plan: The comparison.
        cell: One of its cells.
        identity: What determines the answers, including students; fields that an older comparison lacks are omitted.
    """
    section, data = f"students.{cell.student}", f"data.{cell.data}"
    run: dict[str, Any] = {
        name: identity[key]
        for name, key in {
            "medalign": "medalign",
            "batch_size": "batch_size",
            "base_fingerprint": f"{section}.base_fingerprint",
            "prompt": f"{section}.prompt",
            "dtype": f"{section}.dtype",
            "splits": f"{data}.splits",
            "questions": f"{data}.questions",
            "questions_sha256": f"{data}.questions_sha256",
        }.items()
        if key in identity
    }
    if identity.get(f"{section}.template") is not None:
        run["template"] = identity[f"{section}.template"]
    if "threads" in identity:
        run["threads"] = identity["threads"]
    parts = {"adapter_fingerprint": "adapters", "adapter_settings": "adapter_settings", "lora": "lora"}
    for name, part in parts.items():
        trainings = _trainings(identity, f"{section}.{part}.{cell.adapter}")
        if trainings is not None:
            repeat = cell.repeat if len(trainings) > 1 else 0
            if trainings and repeat >= len(trainings):
                raise InputError(
                    f"{COMPARISON_FILE}: {section}.{part}.{cell.adapter} has {len(trainings)} entries but none for "
                    f"seed {cell.seed}. {_AGAIN}"
                )
            run[name] = trainings[repeat] if trainings else None
    run["decoding"] = plan.decoding(cell).record()
    return dict(json.loads(json.dumps(run)))


def _trainings(identity: Mapping[str, Any], key: str) -> list[Any] | None:
    """The record of each training of an adapter in comparison.json; `None` if there is none."""
    found = identity.get(key)
    if found is not None and not isinstance(found, list):
        raise InputError(f"{COMPARISON_FILE}: {key} is {found!r}, but must be a list. {_AGAIN}")
    return found
