"""The label-free stage: execute a plan, and write the adapter, its record and what was measured."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from ...atomic import remove_tree, write_whole
from ...plain_text import as_typed
from ...progress import Progress
from ...student.adapters.adapter_folder import AdapterRecord
from ...student.adapters.trainable import LearningRates
from ...student.loading.start_adapter import copy_start
from ...student.loading.student_loading import Student
from ...student.processes import Processes
from ...student.training.checkpoints import room_for
from ...student.training.training_options import TrainingOptions
from ...student.training.training_run import LOG_FILE
from ...student.translation.preparation import FOLDER, TOKENS_FILE, PreparationOptions
from ...student.translation.regression import RegressionOptions, RegressionResult, regress_student
from ...student.translation.token_data import FeatureSource, RandomFeatures, StoreFeatures
from ..devices import pick_device
from ..runs.provenance import template_warnings
from ..runs.stop_reasons import as_warnings
from ..training.resume import refuse_changes
from ..training.run_folder import (
    check_adapter_files,
    check_run_folder,
    how_trained,
    read_finished_run,
    start_record,
    store_record,
)
from ..training.train import check_same_inputs
from ..yaml_files import check_sections, read_sections
from .align_images import digest_images
from .align_plan import AlignPlan, plan_align, trainable_parts
from .align_settings import ALIGN_CONFIG_FILE, MAY_CHANGE, AlignSettings

ALIGN_SUMMARY_FILE = "align-summary.json"
"""How a run ended; written last."""
_RESULT = TypeAdapter(RegressionResult)
_BEFORE_CHECKPOINTS = {ALIGN_CONFIG_FILE, LOG_FILE, FOLDER}
_READ_AT_ONCE = 16
"""Images of which tokens are only computed."""


@dataclass(frozen=True, kw_only=True)
class AlignReport:
    """The result of a run and its folder."""

    out: Path
    plan: dict[str, object]
    result: RegressionResult
    was_finished: bool = False
    """Whether the run was already finished, so that nothing was done."""

    def summary(self) -> dict[str, object]:
        """The values for the table and for --json."""
        result, facts = self.result, self.result.translation
        return {
            "adapter": str(self.out),
            **asdict(result.training),
            "translation_r2": facts.r2,
            "translation_r2_of_position_alone": facts.r2_position,
            "target_r2_before": facts.target_r2,
            "target_r2_after": result.target_r2,
            "anchors_moved": result.anchors_moved,
            "control": facts.control,
            "plan": self.plan,
        }


def run_align(settings: AlignSettings, out: Path, progress: Progress, *, resume: bool = False) -> AlignReport:
    """Plan, translate, train, measure, and write the adapter with its record and the resolved settings to `out`.

    Under torchrun every process calls this, and the first one writes. `resume` does not change a finished run.

    Raises:
        InputError: `out` already contains a run and `resume` is off, the translation is too poor, or see `plan_align`.
        SettingsError: See `plan_align`.
        MedalignError: A loss, a gradient or a weight is not finite, or the disk is full.
    """
    check_align_out(out, resume=resume)
    if resume:
        settings = _check_same_run(settings, out / ALIGN_CONFIG_FILE)
        if (finished := read_finished_align(out)) is not None:
            check_adapter_files(out, ALIGN_SUMMARY_FILE)
            return finished
    plan = plan_align(settings)
    for line in as_warnings([*template_warnings(plan.student), *plan.warnings()]):
        progress.note(line)
    record = _record(plan, out)
    if resume:
        check_same_inputs(record, out, data="the images")
    writes = Processes.of_environment().writes
    if writes:
        with room_for(out):
            _begin(plan, out, resume=resume)
    result = regress_student(
        plan.student,
        record,
        plan.sets,
        _source(plan),
        _regression_options(plan),
        _training_options(plan),
        out,
        progress,
        resume=resume,
    )
    report = AlignReport(out=out, plan=plan.summary(), result=result)
    if writes and not result.training.interrupted:
        with room_for(out):
            values = {"result": asdict(result), "plan": report.plan}
            write_whole(out / ALIGN_SUMMARY_FILE, json.dumps(values, indent=2, allow_nan=False) + "\n")
        (out / FOLDER / TOKENS_FILE).unlink(missing_ok=True)  # large, and made of the images
    return report


def _begin(plan: AlignPlan, out: Path, *, resume: bool) -> None:
    """Write what a run has before its first step; a resumed one has it, unless a file was deleted."""
    if not resume:
        out.mkdir(parents=True, exist_ok=True)
        write_whole(out / ALIGN_CONFIG_FILE, plan.settings.to_yaml())
        (out / LOG_FILE).unlink(missing_ok=True)
        if (out / FOLDER).is_dir():
            remove_tree(out / FOLDER)
    if plan.student.start is not None:
        copy_start(plan.student.start, out)


def check_align_out(out: Path, *, resume: bool) -> None:
    """Check that a run can write to `out`, or continue in it.

    Files of a run that was stopped before its first complete checkpoint are allowed, and replaced.

    Raises:
        InputError: It is not empty and `resume` is off, or has nothing to continue from.
    """
    finished = read_finished_align(out) is not None
    check_run_folder(out, resume=resume, finished=finished, before_checkpoints=_BEFORE_CHECKPOINTS)


def read_finished_align(out: Path) -> AlignReport | None:
    """The report of a finished run; None if it was interrupted, killed or never started."""

    def parse(summary: dict[str, Any]) -> AlignReport:
        result, plan = _RESULT.validate_python(summary["result"]), dict(summary["plan"])
        return AlignReport(out=out, plan=plan, result=result, was_finished=True)

    return read_finished_run(out, ALIGN_SUMMARY_FILE, parse)


def _check_same_run(settings: AlignSettings, config: Path) -> AlignSettings:
    """Compare settings with those of an interrupted run, and return them with its precision if theirs is `auto`."""
    saved = check_sections(config, read_sections(config, AlignSettings), AlignSettings)
    if settings.student.dtype == "auto":
        student = settings.student.model_copy(update={"dtype": saved.student.dtype})
        settings = settings.model_copy(update={"student": student})
    refuse_changes(saved.model_dump(mode="json"), settings.model_dump(mode="json"), MAY_CHANGE, config)
    return settings


def _source(plan: AlignPlan) -> FeatureSource:
    if plan.settings.translation.control == "none":
        return StoreFeatures(store=plan.store)
    return RandomFeatures(
        grid=plan.student.images.grid, channels=plan.store.header.width, seed=plan.settings.training.seed
    )


def _record(plan: AlignPlan, out: Path) -> AdapterRecord:
    student, sets = plan.student, plan.sets
    parts = trainable_parts(plan.settings)
    rotations = student.model.rotations
    return AdapterRecord(
        base=str(student.base.resolve()),
        base_fingerprint=student.base_fingerprint,
        layers=tuple(rotations),
        rotation="full" if rotations else "none",
        template=student.template_name,
        attention_normalisation=student.model.attention_normalization,
        store=store_record(plan.store),
        settings=plan.settings.model_dump(mode="json"),
        data_use=plan.data_use,
        trained=how_trained(parts),
        prompt=student.prompt,
        questions_sha256=digest_images(sets.targets, sets.held_out_targets, sets.anchors, sets.held_out_anchors),
        start=start_record(student.start, out),
    )


def _regression_options(plan: AlignPlan) -> RegressionOptions:
    settings = plan.settings
    return RegressionOptions(
        preparation=PreparationOptions(
            ridge=settings.translation.ridge,
            control=settings.translation.control,
            store_fingerprint=plan.store.header.fingerprint,
            base_fingerprint=_before(plan.student),
            anchors_sha256=digest_images(plan.sets.anchors, plan.sets.held_out_anchors),
        ),
        minimum_r2=settings.translation.minimum_r2,
        keep=settings.translation.keep,
        targets_per_step=settings.training.targets_per_step,
        anchors_per_step=settings.training.anchors_per_step,
        steps=settings.training.steps,
        batch_size=_READ_AT_ONCE,
    )


def _before(student: Student) -> str:
    """Fingerprint of the student whose tokens the translation predicts."""
    start = student.start
    return student.base_fingerprint + ("" if start is None else f"+{start.adapter_fingerprint}")


def _training_options(plan: AlignPlan) -> TrainingOptions:
    settings, training = plan.settings, plan.settings.training
    return TrainingOptions(
        alpha=0.0,
        beta=0.0,
        learning_rates=LearningRates(
            language_model=training.learning_rate,
            projector=settings.projector_learning_rate,
            vision_tower=training.learning_rate,
            rotation=training.learning_rate,
            lora_b_ratio=settings.lora.b_rate,
        ),
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        warmup_ratio=training.warmup_ratio,
        num_train_epochs=1.0,
        max_steps=training.steps,
        per_device_train_batch_size=plan.batch_size,
        gradient_accumulation_steps=training.gradient_accumulation_steps,
        eval_steps=None,
        save_steps=training.save_steps,
        logging_steps=training.logging_steps,
        patience=None,
        group_by_length=False,
        gradient_checkpointing=None,
        sharding=None,
        report_to=(),
        precision=settings.student.precision,
        dataloader_num_workers=training.dataloader_num_workers,
        seed=training.seed,
        device=pick_device(training.device),
    )


def continue_command(out: Path) -> str:
    """The command that continues an interrupted run."""
    return f"medalign student align --resume --out {as_typed(out)}"
