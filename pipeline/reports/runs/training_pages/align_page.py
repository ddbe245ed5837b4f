"""The page of `medalign student align`: R^2 of the translation, curves of both losses, probes and answers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import polars as pl

from .....errors import InputError
from .....plain_text import as_typed
from .....student.adapters.adapter_folder import AdapterRecord, read_adapter_record
from .....student.file_errors import unfinished_run
from .....student.translation.translation import TranslationFacts
from ....align.align_settings import ALIGN_CONFIG_FILE
from ....align.align_student import AlignReport, continue_command, read_finished_align
from ....align.measured_changes import AnswersMoved, Measurement, ProbeMoved
from ....runs.run_inputs import RunInputs
from ....training.loss_log import read_log
from ...figures.bars import bars
from ...figures.figure import Figure
from ...page import Page, Section, State, Table
from ..wording import listed, percent, span
from .train_curves import Log, loop_figure, loss_figure, trends
from .train_page import settings_section, train_notice, trained_section, waiting_sentences

_KINDS: Final = ("targets", "anchors")


def align_page(out: Path, given: RunInputs | None = None) -> Page:
    """The page of a finished run; it shows no question, so `given` is not used.

    Raises:
        InputError: The run is not finished, or a file of it is missing or damaged.
    """
    report = read_finished_align(out)
    if report is None:
        then = unfinished_run(out) or f": run `{continue_command(out)}`, then try again"
        raise InputError(f"the run in {out} is not finished{then}")
    record, log = read_adapter_record(out), read_log(out)
    return Page(
        title=f"Label-free alignment of {out.resolve().name}",
        lead=_lead(report, log),
        state=_state(report),
        notice=train_notice(record),
        facts=_facts(report, record),
        sections=tuple(_sections(report, record, log)),
    )


def _lead(report: AlignReport, log: Log) -> str:
    facts, result = report.result.translation, report.result
    sentences = [
        f"The translation explains {percent(facts.r2)} of the variance of the tokens of {facts.held_out} held-out "
        f"anchors ({percent(facts.r2_position)} without looking at the image{_of_random(facts)})."
    ]
    if facts.control != "none":
        sentences.insert(0, f"This is the control {facts.control}: the store's features were not used.")
    if result.target_r2 is not None and result.anchors_moved is not None:
        sentences.append(
            f"R² of the tokens of held-out targets: {facts.target_r2:.3f} before, {result.target_r2:.3f} after. The "
            f"tokens of held-out anchors moved by {percent(result.anchors_moved)} of their variance."
        )
    falls = listed([trend.sentence() for name, trend in trends(log).items() if name != "loss"])
    sentences.append(f"Losses: {falls}." if falls else "")
    answers = (report.measured or Measurement()).answers
    sentences += [f"Answers about held-out {found.sentence()}." for found in answers]
    return " ".join(filter(None, sentences))


def _of_random(facts: TranslationFacts) -> str:
    known = facts.r2_random is not None and facts.control == "none"
    return f", {percent(facts.r2_random)} from random features of it" if known else ""


def _state(report: AlignReport) -> State:
    """Good or bad only if the scores of answers changed beyond noise."""
    changes = [(one.low, one.high) for one in (report.measured or Measurement()).answers if one.low is not None]
    if any(high is not None and high < 0 for _, high in changes):
        return "bad"
    return "good" if any(low is not None and low > 0 for low, _ in changes) else "neutral"


def _sections(report: AlignReport, record: AdapterRecord, log: Log) -> Iterator[Section]:
    measured = report.measured or Measurement()
    yield _translation(report)
    losses = loss_figure(log)
    keep = record.settings.get("translation", {}).get("keep")
    yield Section(
        title="Losses",
        text=[f"The total is loss_translation + {keep} loss_keep; 1 is the error of the mean token."],
        figures=[] if losses is None else [losses],
    )
    if measured.failure is not None:
        yield Section(title="Answers and probes", text=[f"They could not be measured: {measured.failure}"])
    if measured.answers:
        yield _answers(measured.answers)
    if measured.probes:
        yield _probes(measured.probes)
    loop = loop_figure(log)
    if loop is not None:
        yield Section(title="Learning rate, gradient and data", text=list(waiting_sentences(log)), figures=[loop])
    yield trained_section(report.plan, record)
    yield settings_section(report.out / ALIGN_CONFIG_FILE)


def _translation(report: AlignReport) -> Section:
    facts, result = report.result.translation, report.result
    rows = [
        ("translation, held-out anchors", facts.r2),
        ("mean token of each cell alone, held-out anchors", facts.r2_position),
        ("translation of random features, held-out anchors", facts.r2_random),
        ("skill: share of what random features leave that the teacher explains", facts.skill),
        ("tokens of held-out targets, before", facts.target_r2),
        ("tokens of held-out targets, after", result.target_r2),
        ("anchors moved (mean squared difference / variance)", result.anchors_moved),
    ]
    return Section(
        title="Translation",
        text=[
            f"Fitted on {facts.fitted} anchors with ridge {facts.ridge:g}. A high R² guarantees nothing: random "
            "features reach one too where tokens are close to the pixels. The skill compares with them (docs/align.md)."
        ],
        tables=[Table(columns=("R²", "value"), rows=[row for row in rows if row[1] is not None])],
    )


def _answers(found: tuple[AnswersMoved, ...]) -> Section:
    columns = ("held-out images", "questions", "answers that changed", "scored", "score before", "after", "difference")
    rows = [
        (one.images, one.questions, percent(one.changed), one.scored, percent(one.score_before),
         percent(one.score_after), span(one.low, one.high))
        for one in found
    ]  # fmt: skip
    text = (
        "One question about each image, answered greedily by the student before the run and by the trained one. Scores "
        "are strict; differences are 95 % intervals over images, in percentage points."
    )
    return Section(title="Answers before and after", text=[text], tables=[Table(columns=columns, rows=rows)])


def _probes(found: tuple[ProbeMoved, ...]) -> Section:
    columns = ("images", "labels", "at", "before", "after", "difference", "without image features", "number of images")
    rows = [
        (one.images, one.labels, one.stage, percent(one.before), percent(one.after), span(one.low, one.high),
         percent(one.floor), one.sample)
        for one in found
    ]  # fmt: skip
    text = (
        "Balanced accuracy of linear probes, each scored on images that it was not fitted on. The images are trained "
        "and held-out ones; the run used no label of either. A better probe does not guarantee better answers."
    )
    return Section(
        title="Linear probes before and after",
        text=[text],
        figures=[_probe_figure(found)],
        tables=[Table(columns=columns, rows=rows)],
    )


def _probe_figure(found: tuple[ProbeMoved, ...]) -> Figure:
    rows: list[dict[str, Any]] = [
        {"panel": kind, "group": f"{one.labels}, {one.stage}", "series": series, "value": 100 * value}
        for kind in _KINDS
        for one in found
        if one.images == kind
        for series, value in (("before", one.before), ("after", one.after), ("without image", one.floor))
    ]
    said = listed(
        [f"{one.images}, {one.labels} at the {one.stage} {one.before:.2f} to {one.after:.2f}" for one in found]
    )
    return bars(
        name="probes",
        title="What a linear probe reads",
        caption=f"Balanced accuracy before and after: {said}.",
        alt=f"Bar chart of balanced accuracies: {said}.",
        points=pl.DataFrame(rows),
        value_label="balanced accuracy (%)",
    )


def _facts(report: AlignReport, record: AdapterRecord) -> dict[str, object]:
    plan, result = report.plan, report.result.training
    since = f" (since step {result.resumed_from:,})" if result.resumed_from else ""
    names = {
        "student": "student",
        "starts from": "starts_from",
        "precision": "dtype",
        "image tokens": "image_tokens",
        "targets": "targets",
        "anchors": "anchors",
        "targets per step": "targets_per_step",
        "anchors per step": "anchors_per_step",
        "processes": "processes",
        "store": "store",
        "teacher": "teacher",
    }
    facts = {title: plan.get(name) for title, name in names.items()}
    facts |= {
        "control": report.result.translation.control,
        "steps": result.steps,
        "time": f"{result.seconds:,.1f} s{since}",
        "time of measuring": None if report.measured is None else f"{report.measured.seconds:,.1f} s",
        "data-use class": record.data_use,
        "medalign": record.medalign,
        "run it again": f"medalign student align {as_typed(report.out / ALIGN_CONFIG_FILE)} --out NEW",
    }
    return {name: value for name, value in facts.items() if value is not None}
