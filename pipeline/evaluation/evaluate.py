"""Evaluation: a student answers the questions of a split, and every answer is scored as `reference` and as `strict`.

Writes `predictions.parquet` (one row per question; the run is in its metadata) and `metrics.json` (averages).
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from ...errors import InputError, SettingsError
from ...progress import Progress
from ...student.decoding import Decoding
from ...student.decoding.generation import Answer, answer_batch, check_pixels
from ...student.families.bases import read_text_side
from ...student.file_errors import read_object
from ...student.folders.student_facts import StudentFacts
from ...student.inputs.collation import Pixels, Sample
from ...student.loading.student_loading import Student
from ...student.metrics.reports.report_metric import ReportMetric
from ...student.metrics.vqa import ReadingSummary
from ...student.processes import Processes
from ...teacher_cache.store import TeacherStore, open_store
from ...teacher_cache.store.format.keyed_hashes import given_key
from ..data.image_hashing import require_files
from ..data.manifest import Manifest
from ..data.manifest_images import IMAGE_HASHES, question_groups
from ..data.samples import manifest_samples
from ..devices import pick_device
from ..runs.answer_log import (
    LOG_FILES,
    AnswerLog,
    LoggedAnswer,
    check_begun,
    check_free,
    open_run,
    undone_claim,
    writer_name,
)
from ..runs.provenance import describe_questions, describe_student, template_warnings
from ..runs.run_inputs import RunInputs, write_inputs
from ..runs.stop_reasons import as_warnings, count_finishes, shown_finishes
from ..runs.unknown_words import unknown_word_warning
from .batches.array_tasks import PartReport, check_whole, part_report
from .batches.batch_work import BatchOrder, BatchResult, Cell, StudentRecipe
from .batches.conditions import check_conditions, joined_conditions
from .batches.dispatch import WorkRequest, do_missing, jobs_of, run_lock
from .batches.process_group import Group, joined_group
from .decoding_choice import read_decoding
from .example_answers import ExampleAnswer, example_answers, example_lines
from .requests import SplitRequest
from .scoring import (
    METRICS_FILE,
    PREDICTIONS_FILE,
    Scores,
    available_metrics,
    read_answers,
    read_conditions,
    report_values,
    saved_warnings,
    write_scores,
)

QUESTIONS = "questions"
ASKED = ("question_id", "question", "answer", "options", "image_hash", "history")
"""Columns of a manifest that affect answers and scores."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationRequest(SplitRequest):
    """The options of `medalign student evaluate`."""

    decode: str = "greedy"
    """Name of a decoding method."""
    overrides: tuple[str, ...] | Mapping[str, Any] = ()
    """Its settings, as `decode.alpha=0.5`, or by name."""
    max_new_tokens: int = 128
    store: str | None = None
    """Teacher store with E_v of the images, for an adapter that projects the teacher's features."""
    hash_key: Path | None = None
    """The key of a store whose image hashes are keyed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationReport:
    """The results of an evaluation and its folder."""

    out: Path
    run: dict[str, Any]
    """The student, questions and decoding of the results."""
    scores: Scores
    seconds: float
    """Time spent answering, over all interruptions, without loading."""
    forwards: int
    """Forward passes of the language model over all answers."""
    resumed: int
    """Number of answers from an interrupted run."""
    finishes: dict[str, int]
    """Number of answers for each way of stopping (pipeline/runs/stop_reasons.py)."""
    warnings: tuple[str, ...]
    """Warnings about the results."""
    examples: tuple[ExampleAnswer, ...] = ()
    """A few right, wrong and empty answers."""

    def example_lines(self) -> list[str]:
        """The examples for the terminal, one line each."""
        return example_lines(self.examples)

    def summary(self) -> dict[str, Any]:
        """The values for the table: overall scores, without groups."""
        return {
            "predictions": str(self.out / PREDICTIONS_FILE),
            "metrics": str(self.out / METRICS_FILE),
            "split": ", ".join(self.run["splits"]),
            "questions": self.scores.vqa.questions,
            "resumed": self.resumed,
            "seconds": round(self.seconds, 2),
            "forwards_per_answer": round(self.forwards / self.scores.vqa.questions, 2),
            "decoding": self.run["decoding"]["name"],
            "template": self.run["template"],
            **shown_finishes(self.finishes),
            "unspaced_answers": self.scores.vqa.unspaced,
            "reference": _overall(self.scores.vqa.reference),
            "strict": _overall(self.scores.vqa.strict),
            "reports": {
                name: f"absent: {found['absent']}" if "absent" in found else found["value"]
                for name, found in report_values(self.scores).items()
            },
            "warnings": list(self.warnings),
        }

    def table(self) -> dict[str, Any]:
        """The summary without the warnings, which are printed before it."""
        return {name: value for name, value in self.summary().items() if name != "warnings"}


@dataclass(frozen=True, kw_only=True, slots=True)
class AskAnswers:
    """Answer a batch with a decoding method."""

    decoding: Decoding

    @property
    def max_new_tokens(self) -> int:
        return self.decoding.max_new_tokens

    def __call__(self, student: Student, samples: Sequence[Sample], pixels: Sequence[Pixels]) -> list[Answer]:
        return answer_batch(student, samples, self.decoding, pixels)


def run_evaluation(request: EvaluationRequest, out: Path, progress: Progress) -> EvaluationReport | PartReport:
    """Evaluate a student on one split of a manifest, or do one task of it.

    Under torchrun every process calls this; all except the first return a `PartReport`.

    Raises:
        InputError: The split does not exist or is empty, images are missing, the student cannot be read, `out` is in
            use or contains another run, or parts are missing with `finish`.
        SettingsError: A device, template, decoding method or setting does not exist, or options are incompatible.
    """
    decoding = read_decoding(request.decode, request.overrides, max_new_tokens=request.max_new_tokens)
    work = request.work
    if request.resume and work.finish:
        raise SettingsError("--resume and --finish are incompatible: pass only one of them")
    if work.part is None and work.finish:
        check_begun(out)
    check_free(out, resume=request.resume or work.may_exist)  # before any slow step
    with joined_group() as group:
        work.check(group)
        recipe = request.recipe() if request.store is None else _with_features(request, request.recipe(), decoding)
        questions = _questions(request.read_split(), request.limit)
        samples = manifest_samples(questions)
        require_files([image.path for sample in samples for image in sample.images])
        facts = recipe.facts()
        if recipe.features is not None:
            _check_rows(recipe.features, samples)
        run = describe_run(facts, facts.adapter_folder, questions.frame, decoding, request.batch_size)
        threads = work.threads_on(recipe.device)
        scoring_device = pick_device(None) if work.engine == "ray" else recipe.device
        evaluation = Evaluation(
            out=out,
            run=run if threads is None else run | {"threads": threads},
            questions=questions,
            guesses=_warnings(facts, read_text_side(facts.base).tokenizer, questions) if group.is_first else (),
            metrics=available_metrics(scoring_device) if group.is_first else (),
            progress=progress,
            inputs=request.inputs,
        )
        order = BatchOrder(
            students=(recipe,),
            cells=(Cell(student=0, questions=QUESTIONS, ask=AskAnswers(decoding=decoding)),),
            samples={QUESTIONS: tuple(samples)},
            batch_size=request.batch_size,
        )
        adopt = () if work.threads is not None and not work.finish else ("threads",)
        return evaluation.do(order, work, group, resume=request.resume or work.may_exist, adopt=adopt)


def evaluate_student(
    student: Student,
    manifest: Manifest,
    decoding: Decoding,
    out: Path,
    *,
    batch_size: int,
    limit: int | None = None,
    resume: bool = False,
    adapter: Path | None = None,
    metrics: Sequence[ReportMetric] = (),
    progress: Progress,
) -> EvaluationReport:
    """Evaluate a loaded student on every question of a manifest; `adapter` is the folder of its adapter.

    Reports are scored by `metrics`.

    Raises:
        InputError: There is no question, images are missing, or `out` contains something else.
    """
    questions = _questions(manifest, limit)
    samples = manifest_samples(questions)
    require_files([image.path for sample in samples for image in sample.images])
    evaluation = Evaluation(
        out=out,
        run=describe_run(student, adapter, questions.frame, decoding, batch_size),
        questions=questions,
        guesses=_warnings(student, student.tokenizer, questions),
        metrics=metrics,
        progress=progress,
    )
    order = BatchOrder(
        students=(StudentRecipe(folder=student.base),),
        cells=(Cell(student=0, questions=QUESTIONS, ask=AskAnswers(decoding=decoding)),),
        samples={QUESTIONS: tuple(samples)},
        batch_size=batch_size,
    )
    report = evaluation.do(
        order, WorkRequest(), Group(Processes(number=1, rank=0, local_rank=0)), resume=resume, student=student
    )
    assert isinstance(report, EvaluationReport)
    return report


def _with_features(request: EvaluationRequest, recipe: StudentRecipe, decoding: Decoding) -> StudentRecipe:
    """The recipe with the store of an adapter that projects the teacher's features."""
    assert request.store is not None
    if request.work.engine == "ray":
        raise SettingsError("--store is not sent to Ray's machines: use --engine local")
    store = open_store(request.store, given_key(request.hash_key))
    check_pixels(store, decoding)
    return replace(recipe, features=store)


def _check_rows(store: TeacherStore, samples: Sequence[Sample]) -> None:
    """Check that every image has a row.

    Raises:
        MissingTeacherRow: Some have none.
    """
    images = {image.image_hash: image.pixel_hash for sample in samples for image in sample.images}
    missing = store.missing(list(images), list(images.values()))
    if missing:
        raise store.missing_error(missing, len(images))


def _questions(manifest: Manifest, limit: int | None) -> Manifest:
    questions = manifest.questions.head(limit) if limit is not None else manifest.questions
    if questions.is_empty():
        raise InputError(f"the {manifest.source} manifest has no question in split {', '.join(manifest.splits)}")
    return Manifest(questions, manifest.root, manifest.source)


def describe_run(
    student: Student | StudentFacts,
    adapter: Path | None,
    questions: pl.DataFrame,
    decoding: Decoding,
    batch_size: int,
) -> dict[str, Any]:
    """What determines the answers: two runs with equal descriptions give equal answers."""
    made = {"decoding": decoding.record(), "batch_size": batch_size}
    return describe_student(student, adapter) | describe_questions(questions, ASKED) | made


def _warnings(student: Student | StudentFacts, tokenizer: Any, questions: Manifest) -> list[str]:
    """Warnings about a student and these questions before any answer."""
    answers = questions.frame["answer"].drop_nulls().to_list()
    unknown = unknown_word_warning(tokenizer, answers, "reference answers")
    return [*template_warnings(student), *filter(None, [unknown])]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The folder of an evaluation and its run."""

    out: Path
    run: dict[str, Any]
    questions: Manifest
    guesses: Sequence[str]
    metrics: Sequence[ReportMetric]
    progress: Progress
    inputs: RunInputs | None = None
    """Where the questions are; `None` if they come from no file."""

    def do(
        self,
        order: BatchOrder,
        work: WorkRequest,
        group: Group,
        *,
        resume: bool,
        adopt: Sequence[str] = (),
        student: Student | None = None,
    ) -> EvaluationReport | PartReport:
        """Compute the missing answers of this run's part, and score everything unless it is only a part."""
        out, ids = self.out, self.questions.frame["question_id"].to_list()
        run, claimed = self.run, False
        if group.is_first:
            run, claimed = open_run(out, run, resume=resume, adopt=adopt)
        run = group.from_first(run)
        task = work.part
        with undone_claim(out, is_new=claimed and work.part is None), run_lock(out, task, group):
            if group.from_first((out / METRICS_FILE).is_file()):
                if task is not None and group.is_first:
                    return part_report(out, task, 0, order.batches(0), self.progress)
                return self._again(run, ids, group)
            log = AnswerLog(out, ids, order.batch_size, writer_name(work.task, group.rank))
            check_conditions(log.conditions, answering=not work.finish)
            resumed = len(log.answers)
            if resumed and not work.finish:
                self.progress.note(f"resuming after {resumed} of {len(ids)} answers")
            if not work.finish:
                self._answer(log, replace(order, threads=run.get("threads")), work, group, student)
            if not group.is_first:
                return PartReport(out=out, task=None, batches=0, done=0)
            log = AnswerLog(out, ids, order.batch_size)
            if task is not None:
                return part_report(out, task, len(log.missing), order.batches(0), self.progress)
            check_whole(out, log.missing, order.batches(0), log.tasks)
            report = self._finish(run, log.answers, resumed, joined_conditions(log.conditions.values()))
            log.remove()
            return report

    def _answer(
        self, log: AnswerLog, order: BatchOrder, work: WorkRequest, group: Group, student: Student | None
    ) -> None:
        """Compute the missing answers of this run's part; return when all processes of the group are done."""
        left = set(log.missing)
        do_missing(
            order,
            [job for job in jobs_of(order, work.part) if job.batch in left],
            partial(keep_answers, [log], order),
            work,
            group,
            self.progress,
            label=f"answering ({self.run['decoding']['name']})",
            load=None if student is None else lambda number: student,
        )
        group.wait()

    def _again(self, run: dict[str, Any], ids: Sequence[str], group: Group) -> EvaluationReport | PartReport:
        """Score the answers of a finished evaluation."""
        if not group.is_first:
            return PartReport(out=self.out, task=None, batches=0, done=0)
        self.progress.note(f"{self.out} is finished; scoring its answers again")
        for path in self.out.glob(LOG_FILES):
            path.unlink()  # left behind if the run was killed right after writing the metrics
        answers = read_answers(self.out, run, ids)
        return self._finish(run, answers, len(answers), read_conditions(self.out))

    def _finish(
        self, run: dict[str, Any], answers: Sequence[LoggedAnswer], resumed: int, conditions: dict[str, Any]
    ) -> EvaluationReport:
        """Score all answers, write all files, and collect warnings."""
        questions = self.questions.frame
        if self.inputs is not None:
            write_inputs(self.out, self.inputs)
        scores = write_scores(self.out, run, questions, answers, self.metrics, conditions, self.guesses)
        finishes = count_finishes(answers)
        groups = question_groups(questions.select(IMAGE_HASHES).to_series(), questions["question_id"])
        warnings = tuple(saved_warnings(read_object(self.out / METRICS_FILE), questions.height, len(set(groups))))
        for line in as_warnings(warnings):
            self.progress.note(line)
        return EvaluationReport(
            out=self.out,
            run=run,
            scores=scores,
            finishes=finishes,
            warnings=warnings,
            examples=example_answers(questions, answers, scores.questions),
            seconds=sum(answer.seconds for answer in answers),
            forwards=sum(answer.forwards for answer in answers),
            resumed=resumed,
        )


def keep_answers(logs: Sequence[AnswerLog | None], order: BatchOrder, result: BatchResult) -> None:
    """Write a batch of answers to the log of its cell."""
    samples = order.samples_of(result.job)
    answers = [
        LoggedAnswer(
            question_id=sample.question_id,
            prediction=answer.text,
            seconds=result.seconds / len(samples),
            forwards=answer.forwards,
            finish=answer.finish,
        )
        for sample, answer in zip(samples, result.results, strict=True)
    ]
    log = logs[result.job.cell]
    assert log is not None
    log.append(result.job.batch, answers, asdict(result.conditions))


def _overall(reading: ReadingSummary) -> dict[str, Any]:
    return {
        "open_recall": reading.open_recall.value,
        "open_questions": reading.open_recall.count,
        "closed_accuracy": reading.closed_accuracy.value,
        "closed_questions": reading.closed_accuracy.count,
        "choice_accuracy": reading.choice_accuracy.value,
        "choice_questions": reading.choice_accuracy.count,
        "unscored": reading.unscored,
    }
