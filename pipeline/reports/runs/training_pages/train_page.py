"""The page of `medalign student train`: curves of every loss term, what was trained, and how the run ended."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from .....errors import InputError
from .....plain_text import as_typed, counted
from .....student.adapters.adapter_folder import AdapterRecord, read_adapter_record
from .....student.file_errors import read_text, reading, unfinished_run
from ....runs.run_inputs import RunInputs
from ....training.loss_log import read_log
from ....training.settings import CONFIG_FILE
from ....training.train import TrainingReport, read_finished
from ...page import Page, Section, State, Table
from ..wording import listed, percent
from .train_curves import Log, loop_figure, loss_figure, mean_of, trends

_LONG_WAIT: Final = 0.2
"""Share of the time; above it, the page says how to load data faster."""
_WORSE: Final = 0.02
"""A final validation loss this much above the lowest one, relatively, is called higher."""


def train_page(out: Path, given: RunInputs | None = None) -> Page:
    """The page of a finished training run; it shows no question, so `given` is not used.

    Raises:
        InputError: The run is not finished, or a file of it is missing or damaged.
    """
    report = read_finished(out)
    if report is None:
        then = unfinished_run(out) or f": run `medalign student train --resume --out {as_typed(out)}`, then try again"
        raise InputError(f"the training run in {out} is not finished{then}")
    record, log = read_adapter_record(out), read_log(out)
    return Page(
        title=f"Training of {out.resolve().name}",
        lead=_lead(report, log),
        state=_state(report, log),
        notice=train_notice(record),
        facts=_facts(report, record),
        sections=tuple(_sections(out, report, record, log)),
    )


def _lead(report: TrainingReport, log: Log) -> str:
    result = report.result
    ended = f"all {counted(result.planned_steps, 'step')} are complete"
    if result.steps < result.planned_steps:
        ended = f"training.patience stopped it after step {result.steps:,} of {result.planned_steps:,}"
    found = trends(log)
    said = listed([trend.sentence() for trend in found.values()])
    losses = f"Training losses: {said}." if said else "Too few values were logged to say whether the losses fell."
    return f"The run is finished: {ended}. {losses} {_validation(report, log)}"


def _validation(report: TrainingReport, log: Log) -> str:
    """Where the validation loss was lowest, and which weights were kept."""
    values = log.get("eval_loss", ())
    if not values:
        return "There was no validation split, so the page cannot say how the student does on other questions."
    step, lowest = min(values, key=lambda value: value[1])
    last = values[-1][1]
    best = report.result.best
    kept = "the adapter is that of the last step" if best is None else f"the adapter is that of {best['checkpoint']}"
    if last > lowest * (1 + _WORSE):
        warning = ", a sign of overfitting (training.patience keeps the best checkpoint)" if best is None else ""
        return f"Validation loss: lowest at step {step:,} ({lowest:.4g}), {last:.4g} at the end{warning}; {kept}."
    return f"Validation loss: {last:.4g} at the end, lowest {lowest:.4g} (step {step:,}); {kept}."


def _state(report: TrainingReport, log: Log) -> State:
    found = trends(log)
    total = found.get("loss") or found.get("loss_lm")
    if total is None:
        return "neutral"
    evaluated = [value for _, value in log.get("eval_loss", ())]
    overfitted = bool(evaluated) and report.result.best is None and evaluated[-1] > min(evaluated) * (1 + _WORSE)
    if overfitted or total.direction == "rose":
        return "bad"
    return "good" if total.direction == "fell" else "neutral"


def train_notice(record: AdapterRecord) -> str:
    """What the page contains, and the data-use class of the adapter."""
    used = "not known" if record.data_use is None else record.data_use
    return (
        "The page contains no image and no text of the data set, but names of folders in its settings. The data-use "
        f"class of the adapter is {used}."
    )


def _sections(out: Path, report: TrainingReport, record: AdapterRecord, log: Log) -> Iterator[Section]:
    rows = [(trend.title, trend.first, trend.last, trend.direction, trend.logged) for trend in trends(log).values()]
    table = Table(
        columns=("training loss", "first fifth of the log", "last fifth", "change", "logged values"), rows=rows
    )
    losses = loss_figure(log)
    yield Section(
        title="Losses",
        text=list(_alignment(report, record)),
        figures=[] if losses is None else [losses],
        tables=[table] if rows else [],
    )
    loop = loop_figure(log)
    if loop is not None:
        yield Section(title="Learning rate, gradient and data", text=list(waiting_sentences(log)), figures=[loop])
    yield trained_section(report.plan, record)
    yield settings_section(out / CONFIG_FILE)


def _alignment(report: TrainingReport, record: AdapterRecord) -> Iterator[str]:
    settings = record.settings.get("alignment", {})
    alpha, beta = settings.get("alpha"), settings.get("beta")
    if not alpha and not beta:
        yield "No alignment loss was used (alignment.alpha and alignment.beta are 0)."
    else:
        teacher = report.plan.get("teacher")
        yield f"The total is loss_lm + {alpha} loss_vis + {beta} loss_att, with the targets of the teacher {teacher}."


def waiting_sentences(log: Log) -> Iterator[str]:
    """What the run waited for, and which steps it skipped."""
    waited = mean_of(log, "data_wait")
    if waited is not None:
        then = ": a higher training.dataloader_num_workers would make it faster" if waited > _LONG_WAIT else ""
        yield f"The run waited for data during {percent(waited, 0)} of the time{then}."
    skipped = sum(value for _, value in log.get("skipped_steps", ()))
    if skipped:
        yield f"{int(skipped)} steps were skipped, because a gradient was infinite or NaN (float16)."


def trained_section(plan: Mapping[str, Any], record: AdapterRecord) -> Section:
    """The trained parts with their sizes and learning rates."""
    rows = [
        (part.replace("_", " "), how, plan.get(f"trainable_{part}"), plan.get(f"learning_rate_{part}"))
        for part, how in record.trained.items()
    ]
    if plan.get("trainable_rotation"):
        rows.append(("rotation W", record.rotation, plan["trainable_rotation"], plan.get("learning_rate_rotation")))
    layers = listed([str(layer) for layer in record.layers])
    return Section(
        title="What was trained",
        text=[f"Aligned decoder layer (zero-based): {layers}. Rotation: {record.rotation}."] if layers else [],
        tables=[Table(columns=("part", "how", "parameters", "peak learning rate"), rows=rows)],
    )


def settings_section(path: Path) -> Section:
    """All settings in a run's settings file, folded."""
    text = read_text(path)
    with reading(path):
        rows = list(_flat(yaml.safe_load(text)))
    return Section(title="Settings", tables=[Table(columns=("setting", "value"), rows=rows)], folded=True)


def _flat(values: Any, prefix: str = "") -> Iterator[tuple[str, object]]:
    """The settings as in `--set`: SECTION.NAME."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value if isinstance(value, int | float | None) else str(value)


def _facts(report: TrainingReport, record: AdapterRecord) -> dict[str, object]:
    plan, result = report.plan, report.result
    since = f" (since step {result.resumed_from:,})" if result.resumed_from else ""
    facts: dict[str, object | None] = {
        "student": plan.get("student"),
        "starts from": plan.get("starts_from"),
        "prompt template": plan.get("template"),
        "precision": plan.get("dtype"),
        "image tokens": plan.get("image_tokens"),
        "steps": result.steps,
        "questions per step": plan.get("samples_per_step"),
        "training questions": plan.get("train_questions"),
        "validation questions": plan.get("validation_questions"),
        "processes": plan.get("processes"),
        "time": f"{result.seconds:,.1f} s{since}",
        "store": plan.get("store"),
        "teacher": plan.get("teacher"),
        "data-use class": record.data_use,
        "medalign": record.medalign,
        "train it again": f"medalign student train {as_typed(report.out / CONFIG_FILE)} --out NEW",
    }
    return {name: value for name, value in facts.items() if value is not None}
