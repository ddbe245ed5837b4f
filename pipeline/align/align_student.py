"""The label-free stage: execute a plan, and write the adapter, its record and what was measured."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from ...atomic import remove_tree, write_whole
from ...plain_text import as_typed
from ...progress import Progress
from ...student.adapters.adapter_folder import START_FOLDER
from ...student.inputs.collation import SampleImage
from ...student.loading.start_adapter import copy_start
from ...student.processes import Processes
from ...student.training.checkpoints import room_for
from ...student.training.training_run import LOG_FILE
from ...student.translation.preparation import FOLDER, TOKENS_FILE
from ...student.translation.regression import RegressionResult, regress_student
from ..devices import pick_device
from ..runs.provenance import template_warnings
from ..runs.stop_reasons import as_warnings
from ..training.resume import refuse_changes
from ..training.run_folder import check_adapter_files, check_run_folder, read_finished_run
from ..training.train import check_same_inputs
from ..yaml_files import check_sections, read_sections
from .align_images import read_manifest
from .align_options import adapter_record, feature_sources, regression_options, training_options
from .align_plan import AlignPlan, plan_align
from .align_settings import ALIGN_CONFIG_FILE, MAY_CHANGE, AlignSettings
from .measured_changes import Kind, Measure, MeasuredImages, Measurement, MeasureRequest

ALIGN_SUMMARY_FILE = "align-summary.json"
"""How a run ended; written last."""
_RESULT = TypeAdapter(RegressionResult)
_MEASURED = TypeAdapter(Measurement)
_BEFORE_CHECKPOINTS = {ALIGN_CONFIG_FILE, LOG_FILE, FOLDER}


@dataclass(frozen=True, kw_only=True)
class AlignReport:
    """The result of a run and its folder."""

    out: Path
    plan: dict[str, object]
    result: RegressionResult
    measured: Measurement | None = None
    """What changed; None if it was not measured, or in another process."""
    was_finished: bool = False
    """Whether the run was already finished, so that nothing was done."""

    def summary(self) -> dict[str, object]:
        """The values for --json."""
        return self._values() | {
            "measured": None if self.measured is None else asdict(self.measured),
            "plan": self.plan,
        }

    def table(self) -> dict[str, object]:
        """The values for the table: what was measured in sentences."""
        measured = self.measured or Measurement()
        sentences = {
            "answers": [found.sentence() for found in measured.answers],
            "probes": [found.sentence() for found in measured.probes],
        }
        return self._values() | {name: lines for name, lines in sentences.items() if lines} | {"plan": self.plan}

    def _values(self) -> dict[str, object]:
        result, facts = self.result, self.result.translation
        return {
            "adapter": str(self.out),
            **asdict(result.training),
            "translation_r2": facts.r2,
            "translation_r2_of_position_alone": facts.r2_position,
            "translation_r2_of_random_features": facts.r2_random,
            "translation_skill": facts.skill,
            "target_r2_before": facts.target_r2,
            "target_r2_after": result.target_r2,
            "anchors_moved": result.anchors_moved,
            "control": facts.control,
        }


def run_align(
    settings: AlignSettings, out: Path, progress: Progress, *, resume: bool = False, measure: Measure | None = None
) -> AlignReport:
    """Plan, translate, train, measure, and write the adapter with its record and the resolved settings to `out`.

    Under torchrun every process calls this, and the first one writes. `resume` does not change a finished run.
    `measure` compares answers and probes before and after (inspection/student_changes.py); None: nothing does.

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
    result = _train(plan, out, progress, resume=resume)
    summary, request = plan.summary(), _measure_request(plan, out)
    del plan  # its model makes room for those that are measured
    if result.training.interrupted or not Processes.of_environment().writes:
        return AlignReport(out=out, plan=summary, result=result)
    measured = None if measure is None else measure(request, progress)
    with room_for(out):
        changes = None if measured is None else asdict(measured)
        values = {"result": asdict(result), "measured": changes, "plan": summary}
        write_whole(out / ALIGN_SUMMARY_FILE, json.dumps(values, indent=2, allow_nan=False) + "\n")
    (out / FOLDER / TOKENS_FILE).unlink(missing_ok=True)  # large, and made of the images
    return AlignReport(out=out, plan=summary, result=result, measured=measured)


def _train(plan: AlignPlan, out: Path, progress: Progress, *, resume: bool) -> RegressionResult:
    record = adapter_record(plan, out)
    if resume:
        check_same_inputs(record, out, data="the images")
    if Processes.of_environment().writes:
        with room_for(out):
            _begin(plan, out, resume=resume)
    return regress_student(
        plan.student,
        record,
        plan.sets,
        *feature_sources(plan),
        regression_options(plan),
        training_options(plan),
        out,
        progress,
        resume=resume,
    )


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


def _measure_request(plan: AlignPlan, out: Path) -> MeasureRequest:
    data, sets, report = plan.settings.data, plan.sets, plan.settings.report
    chosen: Mapping[Kind, tuple[Any, list[SampleImage], list[SampleImage]]] = {
        "targets": (
            read_manifest(data.targets, data.targets_split, data.targets_root),
            [*sets.targets, *sets.held_out_targets],
            [*sets.held_out_targets],
        ),
        "anchors": (
            read_manifest(data.anchors, data.anchors_split, data.anchors_root),
            [*sets.anchors, *sets.held_out_anchors],
            [*sets.held_out_anchors],
        ),
    }
    return MeasureRequest(
        before=plan.student.base if plan.student.start is None else out / START_FOLDER,
        after=out,
        images={
            kind: MeasuredImages(
                manifest=manifest,
                used={image.image_hash for image in used},
                held_out={image.image_hash for image in held_out},
            )
            for kind, (manifest, used, held_out) in chosen.items()
        },
        limit=report.images,
        max_new_tokens=report.max_new_tokens,
        template=plan.student.template_name,
        dtype=plan.settings.student.precision,
        device=pick_device(plan.settings.training.device),
        seed=plan.settings.training.seed,
    )


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
        measured = None if summary.get("measured") is None else _MEASURED.validate_python(summary["measured"])
        return AlignReport(out=out, plan=plan, result=result, measured=measured, was_finished=True)

    return read_finished_run(out, ALIGN_SUMMARY_FILE, parse)


def _check_same_run(settings: AlignSettings, config: Path) -> AlignSettings:
    """Compare settings with those of an interrupted run, and return them with its precision if theirs is `auto`."""
    saved = check_sections(config, read_sections(config, AlignSettings), AlignSettings)
    if settings.student.dtype == "auto":
        student = settings.student.model_copy(update={"dtype": saved.student.dtype})
        settings = settings.model_copy(update={"student": student})
    refuse_changes(saved.model_dump(mode="json"), settings.model_dump(mode="json"), MAY_CHANGE, config)
    return settings


def continue_command(out: Path) -> str:
    """The command that continues an interrupted run."""
    return f"medalign student align --resume --out {as_typed(out)}"
