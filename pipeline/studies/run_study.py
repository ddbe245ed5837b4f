"""`medalign study`: develop arms, choose their trials, and read the test questions once."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import InputError, SettingsError
from ...plain_text import counted
from ...progress import Progress
from ...student.file_errors import is_file, read_object
from ...student.processes import Processes
from ...teacher_cache.workers.task import parse_task
from .study_claim import (
    check_claim,
    check_lock,
    check_not_tested,
    check_test_units,
    claim_study,
    digest_spec,
    read_lock,
    take_lock,
)
from .study_results import RESULTS_FILE, AnswersOfRuns, study_tables, write_results
from .study_spec import StudySpec
from .study_summary import StudyRuns, study_summary
from .trial_choice import TrialChoice, choose_trials, chosen_trials, saved_trials, write_choices
from .units.arm_settings import check_arm_settings
from .units.study_inputs import StudyInputs
from .units.unit_plan import Part, Run, UnitPlan
from .units.unit_queue import UnitQueue, quick_collection


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyRequest:
    """The options of `medalign study`."""

    spec: StudySpec
    read_test: bool = False
    """Answer the test questions, which can be done once."""
    device: str | None = None
    task: str | None = None
    """`I/N`: this process is the I-th of N that share the folder."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyReport:
    """The results of a study and its folder."""

    out: Path
    values: dict[str, Any]
    """The content of study-results.json."""
    done: int
    """Units of work that this process did."""

    @property
    def has_test(self) -> bool:
        """Whether the test questions were read."""
        return self.values["test_read_at"] is not None

    def summary(self) -> dict[str, Any]:
        """The values for the table and for --json."""
        return {"out": str(self.out), "units_done_now": self.done, **self.values}


def run_study(request: StudyRequest, out: Path, progress: Progress) -> StudyReport:
    """Do what is missing of a study, and write its results.

    Raises:
        SettingsError: A setting of an arm, the decoding or the task is invalid, or torchrun started several processes.
        InputError: Data are missing or too few, `out` contains something else, units that the test needs are missing,
            or the test questions were read with another specification.
        StoreError: A store does not fit the students, or lacks images.
        MedalignError: A unit of work failed.
    """
    spec, task = request.spec, parse_task(request.task)
    check_arm_settings(spec)
    _refuse_torchrun()
    _claim(out, spec, progress)
    digest = digest_spec(spec)
    plan = UnitPlan(spec, StudyInputs(out), request.device)
    _check_earlier_test(plan, out)
    if request.read_test and (saved := _saved(out, spec)) is not None:
        progress.note(f"the test questions were read on {saved.values['test_read_at']}; these are the saved results")
        return saved
    queue = UnitQueue(out, task, lambda: check_claim(out, digest), progress)
    answers = AnswersOfRuns(plan, queue, out)
    parts: list[Part] = ["develop"]
    plan.require_scored("develop")
    with quick_collection():
        choices = _develop(plan, queue, answers, request)
        write_choices(out, spec, choices)
        final = plan.final_runs(chosen_trials(spec, choices))
        if request.read_test or read_lock(out) is not None:
            _read_test(plan, queue, final, out)
            parts.append("test")
    tables = study_tables(spec, parts, final, answers)
    tables.write(out)
    runs = StudyRuns(tuning=plan.tuning_runs(), final=final, parts=parts)
    values = study_summary(plan, queue, runs, choices, tables, out)
    write_results(out, values)
    return StudyReport(out=out, values=values, done=queue.done)


def _claim(out: Path, spec: StudySpec, progress: Progress) -> None:
    """Claim the folder, and note if it had another specification."""
    replaced = claim_study(out, spec)
    if replaced is not None:
        progress.note(
            f"the specification changed: {replaced[:16]} before, {digest_spec(spec)[:16]} now; units that both need "
            "are kept"
        )


def _check_earlier_test(plan: UnitPlan, out: Path) -> None:
    """Check that test questions that were read would be answered alike, before anything is done again.

    Raises:
        InputError: Inputs have changed since, or the lock is missing.
    """
    if (lock := check_lock(out, plan.spec)) is None:
        check_not_tested(out)
    elif (chosen := saved_trials(plan.spec, out)) is not None:
        check_test_units(out, lock, [plan.answers(run, "test").digest for run in plan.final_runs(chosen)])


def _develop(plan: UnitPlan, queue: UnitQueue, answers: AnswersOfRuns, request: StudyRequest) -> list[TrialChoice]:
    """Compare trials, then train every arm with every seed and answer the development questions."""
    tuning = plan.tuning_runs()
    trials = [plan.answers(run, "develop") for run in tuning]
    if request.read_test:
        _require_finished(queue, trials)
    queue.do(trials, "the trials")
    choices = choose_trials(plan.spec, tuning, answers)
    finals = [plan.answers(run, "develop") for run in plan.final_runs(chosen_trials(plan.spec, choices))]
    if request.read_test:
        _require_finished(queue, finals)
    queue.do(finals, "the development")
    return choices


def _require_finished(queue: UnitQueue, units: Sequence[Any]) -> None:
    """Check that development is complete, so that nothing is decided after the test questions were read.

    Raises:
        InputError: Units are missing.
    """
    if missing := queue.unfinished(units):
        raise InputError(
            f"the test questions were not read: {counted(len(missing), 'unit')} of the development "
            f"{'is' if len(missing) == 1 else 'are'} unfinished, first: {missing[0].KIND} of {missing[0].label}. Run "
            "the same command without --read-test first"
        )


def _read_test(plan: UnitPlan, queue: UnitQueue, runs: Sequence[Run], out: Path) -> None:
    """Lock the study, then answer the test questions."""
    plan.require_scored("test")
    units = [plan.answers(run, "test") for run in runs]
    take_lock(out, plan.spec, [unit.digest for unit in units])
    queue.do(units, "the test")


def _refuse_torchrun() -> None:
    if (number := Processes.of_environment().number) > 1:
        raise SettingsError(
            f"torchrun started {number} processes, but a study divides units of work, not batches: start it with "
            "--task I/N once for each process, on a shared folder"
        )


def _saved(out: Path, spec: StudySpec) -> StudyReport | None:
    """The saved results of a study whose test questions were read; None if it was stopped before they were written."""
    if not is_file(out / RESULTS_FILE):
        return None
    values = read_object(out / RESULTS_FILE)
    complete = values.get("spec_sha256") == digest_spec(spec) and values.get("test_read_at") is not None
    return StudyReport(out=out, values=values, done=0) if complete else None
