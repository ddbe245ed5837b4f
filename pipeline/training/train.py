"""Stage two: execute a training plan, and write the adapter, its record and a report."""

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter

from ...atomic import write_whole
from ...errors import InputError
from ...progress import Progress
from ...student.adapters.adapter_folder import AdapterRecord, read_adapter_record
from ...student.adapters.parameter_names import QUERY_EXPERTS, TEACHER_PROJECTION, Part
from ...student.inputs.collation import Sample
from ...student.loading.start_adapter import copy_start
from ...student.processes import Processes
from ...student.training.checkpoints import last_whole_checkpoint, room_for
from ...student.training.training_options import TrainingOptions
from ...student.training.training_run import LOG_FILE, TrainingResult, train_student
from ..devices import pick_device
from ..runs.provenance import template_warnings
from ..runs.stop_reasons import as_warnings
from .plan import plan_training
from .region_targets import RegionTargets
from .resume import check_same_run
from .run_folder import (
    check_adapter_files,
    check_run_folder,
    how_trained,
    read_finished_run,
    start_record,
    store_record,
)
from .settings import CONFIG_FILE, Settings
from .step_shape import visual_parts
from .training_plan import TrainingPlan, learning_rates, trainable_parts

SUMMARY_FILE = "summary.json"
"""How a run ended; written last."""
_RESULT: Final = TypeAdapter(TrainingResult)

BEFORE_CHECKPOINTS = {CONFIG_FILE, LOG_FILE, "runs"}
"""Files of a run before its first checkpoint; `runs` belongs to TensorBoard."""


@dataclass(frozen=True, kw_only=True)
class TrainingReport:
    """The result of a run and its folder."""

    out: Path
    plan: dict[str, object]
    result: TrainingResult
    was_finished: bool = False
    """Whether the run was already finished, so that nothing was done."""

    def summary(self) -> dict[str, object]:
        return {"adapter": str(self.out), **asdict(self.result), "plan": self.plan}

    def table(self) -> dict[str, object]:
        """The summary without what this call has printed as a warning."""
        noted = set() if self.was_finished else {"unknown_words"}
        return self.summary() | {"plan": {name: value for name, value in self.plan.items() if name not in noted}}

    def ending(self) -> str:
        """Explain why a finished run ended, and how to train longer."""
        result = self.result
        how = f"all {result.planned_steps} steps are complete"
        if result.steps < result.planned_steps:
            kept = "" if result.best is None else f", best {result.best['checkpoint']}"
            how = f"training.patience stopped it after step {result.steps} of {result.planned_steps}{kept}"
        return (
            f"the run in {self.out} is finished: {how}. Nothing was changed. A longer run has a different "
            "learning-rate schedule: start a new run with another --out"
        )


def run_training(settings: Settings, out: Path, progress: Progress, *, resume: bool = False) -> TrainingReport:
    """Plan, train, and write the adapter with its record and the resolved settings to `out`.

    Under torchrun every process calls this, and the first one writes. `resume` does not change a finished run.

    Raises:
        InputError: `out` already contains a run and `resume` is off; or see `plan_training`.
        SettingsError: `resume` is on, but the settings would give another result than those of the run in `out`.
        MedalignError: A loss, a gradient or a weight is NaN or infinite, or the disk is full.
    """
    check_out(out, resume=resume)
    if resume:
        settings = check_same_run(settings, out / CONFIG_FILE)
        if (finished := read_finished(out)) is not None:
            check_adapter_files(out, SUMMARY_FILE)
            return finished
    plan = plan_training(settings)
    for line in as_warnings([*template_warnings(plan.student), *filter(None, [plan.unknown_words])]):
        progress.note(line)
    record = _record(plan, out)
    if resume:
        check_same_inputs(record, out)
    writes = Processes.of_environment().writes
    if writes:
        with room_for(out):
            out.mkdir(parents=True, exist_ok=True)
            if not resume:  # other processes may be reading it
                write_whole(out / CONFIG_FILE, plan.settings.to_yaml())
                (out / LOG_FILE).unlink(missing_ok=True)
            if plan.student.start is not None:
                copy_start(plan.student.start, out)
    result = train_student(
        plan.student, record, _options(plan.settings), plan.train, plan.validation, out, progress, resume=resume
    )
    report = TrainingReport(out=out, plan=plan.summary(), result=result)
    if writes:
        with room_for(out):
            write_whole(out / SUMMARY_FILE, json.dumps(report.summary(), indent=2, allow_nan=False) + "\n")
    return report


def read_finished(out: Path) -> TrainingReport | None:
    """The report of a finished run; None if it was interrupted, killed or never started."""

    def parse(summary: dict[str, Any]) -> TrainingReport | None:
        values = {field.name: summary[field.name] for field in fields(TrainingResult) if field.name in summary}
        result, plan = _RESULT.validate_python(values), dict(summary["plan"])
        return None if result.interrupted else TrainingReport(out=out, plan=plan, result=result, was_finished=True)

    return read_finished_run(out, SUMMARY_FILE, parse)


def check_out(out: Path, *, resume: bool) -> None:
    """Check that a run can write to `out`, or continue in it.

    Files of a run that was stopped before its first complete checkpoint are allowed, and replaced.

    Raises:
        InputError: It is not empty and `resume` is off, or has nothing to continue from.
    """
    finished = read_finished(out) is not None
    check_run_folder(out, resume=resume, finished=finished, before_checkpoints=BEFORE_CHECKPOINTS)


def check_same_inputs(record: AdapterRecord, out: Path, *, data: str = "the training questions") -> None:
    """Check that the content behind the paths in the settings has not changed; `data` names what the digest covers.

    Raises:
        InputError: Base, store or training questions are not those of the run in `out`.
    """
    checkpoint = last_whole_checkpoint(out)
    assert checkpoint is not None
    before = read_adapter_record(checkpoint)
    pairs = {
        "the base": (before.base_fingerprint, record.base_fingerprint),
        "the store": ((before.store or {}).get("fingerprint"), (record.store or {}).get("fingerprint")),
        data: (before.questions_sha256, record.questions_sha256),
    }
    pairs["the adapter that it starts from:"] = (_fingerprint(before), _fingerprint(record))
    if before.prompt is not None:
        pairs["the prompt of the base:"] = (str(before.prompt), str(record.prompt))
    changed = [f"{what} {old} before, {new} now" for what, (old, new) in pairs.items() if old != new]
    if changed:
        raise InputError(
            f"the run in {out} cannot be resumed because fingerprints differ: {'; '.join(changed)}. Start a new run "
            "with another --out"
        )


def _fingerprint(record: AdapterRecord) -> str:
    return "none" if record.start is None else record.start.adapter_fingerprint


def _digest_questions(samples: list[Sample], regions: RegionTargets | None) -> str:
    digest = hashlib.sha256()
    for sample in samples:
        images = [image.image_hash for image in sample.images]
        digest.update(json.dumps([sample.question, sample.answer, images, sample.history]).encode())
    if regions is not None:
        digest.update(regions.digest(samples).encode())
    return digest.hexdigest()


def _record(plan: TrainingPlan, out: Path) -> AdapterRecord:
    settings, student, store = plan.settings, plan.student, plan.store
    return AdapterRecord(
        base=str(student.base.resolve()),
        base_fingerprint=student.base_fingerprint,
        layers=settings.alignment.layers,
        rotation=settings.alignment.rotation,
        template=student.template_name,
        attention_normalisation=student.model.attention_normalization,
        store=None if store is None else store_record(store),
        settings=settings.model_dump(mode="json"),
        data_use=plan.data_use,
        trained=how_trained(trainable_parts(settings)) | _added_parts(settings),
        prompt=student.prompt,
        questions_sha256=_digest_questions(plan.samples, plan.regions),
        start=start_record(student.start, out),
    )


def _added_parts(settings: Settings) -> dict[Part, str]:
    """Trained parts that the base does not have, except for W."""
    added = {
        TEACHER_PROJECTION: settings.alignment.image_tokens == "teacher",
        QUERY_EXPERTS: settings.alignment.query_experts,
    }
    return {part: "full" for part, is_added in added.items() if is_added}


def _options(settings: Settings) -> TrainingOptions:
    training = settings.training
    return TrainingOptions(
        alpha=settings.alignment.alpha,
        beta=settings.alignment.beta,
        visual_gradient=visual_parts(settings),
        learning_rates=learning_rates(settings),
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        warmup_ratio=training.warmup_ratio,
        num_train_epochs=training.num_train_epochs,
        max_steps=training.max_steps,
        per_device_train_batch_size=training.per_device_train_batch_size,
        gradient_accumulation_steps=training.gradient_accumulation_steps,
        eval_steps=training.eval_steps,
        save_steps=training.save_steps,
        logging_steps=training.logging_steps,
        patience=training.patience,
        group_by_length=training.group_by_length,
        gradient_checkpointing=training.gradient_checkpointing,
        sharding=training.sharding,
        report_to=training.report_to,
        precision=settings.student.precision,
        dataloader_num_workers=training.dataloader_num_workers,
        seed=training.seed,
        device=pick_device(training.device),
    )
