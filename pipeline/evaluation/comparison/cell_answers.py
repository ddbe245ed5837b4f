"""The answers of a comparison's cells: compute missing batches, and score complete cells."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ....progress import Progress
from ....student.loading.student_loading import Student, load_student
from ....student.metrics.reports.report_metric import ReportMetric
from ....teacher_cache.workers.task import Task
from ...data.samples import manifest_samples
from ...runs.answer_log import AnswerLog, open_run, writer_name
from ...runs.stop_reasons import count_finishes
from ..batches.array_tasks import PartReport, check_whole, part_report
from ..batches.batch_work import BatchJob, BatchOrder, StudentRecipe
from ..batches.batch_work import Cell as CellWork
from ..batches.conditions import check_conditions, joined_conditions
from ..batches.dispatch import WorkRequest, do_missing, jobs_of
from ..batches.process_group import Group
from ..evaluate import AskAnswers, describe_run, keep_answers
from ..scoring import write_scores
from .analysis import ScoredCell
from .cells import Cell, Loading, Plan
from .saved_cells import check_cell, is_finished


class CellAnswers:
    """The unfinished cells of a plan."""

    def __init__(
        self,
        plan: Plan,
        identity: dict[str, Any],
        out: Path,
        device: str,
        work: WorkRequest,
        group: Group,
        progress: Progress,
    ) -> None:
        """Check finished cells and claim the others.

        Raises:
            InputError: The folder of a cell contains another evaluation.
        """
        self._plan, self._out, self._work, self._group, self._progress = plan, out, work, group, progress
        self._threads = identity.get("threads")
        self._unfinished = [number for number, cell in enumerate(plan.cells) if not is_finished(out, cell)]
        self._unfinished = group.from_first(self._unfinished)
        unfinished = set(self._unfinished)
        for number, cell in enumerate(plan.cells):  # check early
            if number not in unfinished:
                check_cell(plan, cell, out, identity)
        self._order = _order(plan, device, self._threads)
        self._runs: dict[int, dict[str, Any]] = {}
        if group.is_first:
            self._claim()

    def do(self) -> int:
        """Compute this run's part of the missing answers; return the number of cells that it worked on.

        Raises:
            InputError: Answers have other versions, or parts are missing with `finish`.
        """
        logs = self._logs(writer_name(self._work.task, self._group.rank))
        for log in logs.values():
            check_conditions(log.conditions, answering=not self._work.finish)
        left = {number: set(log.missing) for number, log in logs.items()}
        missing = [job for job in jobs_of(self._order, self._work.part) if job.batch in left.get(job.cell, ())]
        if self._work.finish:
            self._check_whole(logs, missing)
            return 0
        listed = [logs.get(number) for number in range(len(self._plan.cells))]
        do_missing(
            self._order,
            missing,
            partial(keep_answers, listed, self._order),
            self._work,
            self._group,
            self._progress,
            label="answering",
            load=partial(self._load, missing),
        )
        self._group.wait()
        return len({job.cell for job in missing})

    def report_part(self, task: Task) -> PartReport:
        """The report of a task."""
        missing = sum(len(log.missing) for log in self._logs("").values())
        return part_report(self._out, task, missing, len(self._order.jobs()), self._progress)

    def score(self, metrics: Sequence[ReportMetric]) -> dict[Cell, ScoredCell]:
        """Score the newly completed cells, and write their files."""
        found: dict[Cell, ScoredCell] = {}
        logs = self._logs("")
        self._check_whole(logs, [BatchJob(number, batch) for number, log in logs.items() for batch in log.missing])
        for number, log in logs.items():
            cell, answers = self._plan.cells[number], log.answers
            conditions = joined_conditions(log.conditions.values())
            questions = self._plan.questions[cell.data].frame
            scores = write_scores(self._out / cell.folder, self._runs[number], questions, answers, metrics, conditions)
            log.remove()
            found[cell] = ScoredCell(
                results=scores.results,
                answers=len(answers),
                seconds=sum(answer.seconds for answer in answers),
                forwards=sum(answer.forwards for answer in answers),
                finishes=count_finishes(answers),
            )
        return found

    def _claim(self) -> None:
        """Write run.json of every unfinished cell, or check the existing one."""
        facts = {place: student.facts() for place, student in enumerate(self._order.students) if self._is_needed(place)}
        for number in self._unfinished:
            cell, of = self._plan.cells[number], facts[self._order.cells[number].student]
            questions, decoding = self._plan.questions[cell.data].frame, self._plan.decoding(cell)
            run = describe_run(of, of.adapter_folder, questions, decoding, self._order.batch_size)
            if self._threads is not None:
                run["threads"] = self._threads
            self._runs[number], _ = open_run(self._out / cell.folder, run, resume=True)

    def _is_needed(self, student: int) -> bool:
        return any(self._order.cells[number].student == student for number in self._unfinished)

    def _logs(self, writer: str) -> dict[int, AnswerLog]:
        """The current logs of every unfinished cell."""
        logs: dict[int, AnswerLog] = {}
        for number in self._unfinished:
            cell = self._plan.cells[number]
            ids = self._plan.questions[cell.data].frame["question_id"].to_list()
            logs[number] = AnswerLog(self._out / cell.folder, ids, self._order.batch_size, writer)
        return logs

    def _check_whole(self, logs: dict[int, AnswerLog], missing: Sequence[BatchJob]) -> None:
        jobs = self._order.jobs()
        numbers = {job: number for number, job in enumerate(jobs)}
        tasks = {count for log in logs.values() for count in log.tasks}
        check_whole(self._out, [numbers[job] for job in missing], len(jobs), tasks)

    def _load(self, missing: Sequence[BatchJob], number: int) -> Student:
        """Load a student in this process."""
        loading = self._plan.loadings[number]
        cells = {job.cell for job in missing if self._order.cells[job.cell].student == number}
        self._progress.note(f"loading {loading.student.name}, {loading.adapter.name}: {len(cells)} cells to answer")
        recipe = self._order.students[number]
        return load_student(
            recipe.folder,
            adapter=recipe.adapter,
            device=recipe.device,
            dtype=recipe.dtype,
            template=recipe.template,
            keep_lora_apart=recipe.keep_lora_apart,
        )


def _order(plan: Plan, device: str, threads: int | None) -> BatchOrder:
    """The order of all cells, including finished ones, so that batch numbers do not change."""
    return BatchOrder(
        students=tuple(_recipe(plan, loading, device) for loading in plan.loadings),
        cells=tuple(
            CellWork(student=place, questions=cell.data, ask=AskAnswers(decoding=plan.decoding(cell)))
            for place, loading in enumerate(plan.loadings)
            for cell in loading.cells
        ),
        samples={name: tuple(manifest_samples(questions)) for name, questions in plan.questions.items()},
        batch_size=plan.spec.batch_size,
        threads=threads,
    )


def _recipe(plan: Plan, loading: Loading, device: str) -> StudentRecipe:
    student = loading.student
    return StudentRecipe(
        folder=student.path,
        adapter=loading.path,
        device=device,
        dtype=plan.dtypes[student.name],
        template=plan.templates[student.name],
        keep_lora_apart=student.keep_lora_apart,
    )
