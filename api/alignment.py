"""The label-free stage: `medalign student align` as a function."""

from collections.abc import Mapping
from typing import Any, Literal, overload

from ..errors import SettingsError
from ..pipeline.align.align_plan import AlignPlan, plan_align
from ..pipeline.align.align_settings import load_align_settings, with_control
from ..pipeline.align.align_student import AlignReport, check_align_out, run_align
from ..pipeline.inspection.student_changes import measure_changes
from ..pipeline.training.settings_loading import Overrides
from ..progress import Progress
from .arguments import AnyPath, check_overrides, check_texts, optional_path, output_path, progress_of

Config = AnyPath | Mapping[str, Any]


@overload
def align(
    config: Config | None = ...,
    out: AnyPath | None = ...,
    *,
    overrides: Overrides = ...,
    control: Literal["random-teacher"] | None = ...,
    dry_run: Literal[False] = ...,
    resume: bool = ...,
    progress: bool | Progress = ...,
) -> AlignReport: ...


@overload
def align(
    config: Config | None = ...,
    out: AnyPath | None = ...,
    *,
    overrides: Overrides = ...,
    control: Literal["random-teacher"] | None = ...,
    dry_run: Literal[True],
    resume: bool = ...,
    progress: bool | Progress = ...,
) -> AlignPlan: ...


def align(
    config: Config | None = None,
    out: AnyPath | None = None,
    *,
    overrides: Overrides = (),
    control: Literal["random-teacher"] | None = None,
    dry_run: bool = False,
    resume: bool = False,
    progress: bool | Progress = False,
) -> AlignReport | AlignPlan:
    """Train a student's vision tower without labels, as `medalign student align` does.

    Args:
        config: A YAML file, or its sections as a mapping (docs/align.md); default with `resume`: the one in `out`.
        out: Output folder of the adapter; optional only with `dry_run`.
        overrides: Settings to override: `{"translation.keep": 1.0}`, or `["translation.keep=1.0"]`.
        control: `random-teacher` runs the control: random features of the pixels instead of the teacher's.
        dry_run: Check everything and return the plan without training.
        resume: Continue from the newest checkpoint in `out`.
        progress: True shows bars on the terminal; or any object with `start`, `advance` and `note`.

    Returns:
        The report of the run, or its plan with `dry_run`; `summary()` is what the command prints, and
        `report.measured` has answers and linear probes before and after. After an interrupt (Ctrl-C)
        `report.result.training.interrupted` is true and `resume=True` continues.

    Raises:
        SettingsError: A setting is invalid, or does not fit the student or this machine.
        InputError: The translation is too poor, an image is missing or both target and anchor, the student is
            incomplete, or `out` contains something else.
        StoreError: The store has no E_v, does not fit the student, or lacks images.

    Examples:
        >>> import medalign
        >>> settings = {
        ...     "student": {"path": "medalign-demo/student", "template": "plain"},
        ...     "data": {
        ...         "store": "medalign-demo/store.zarr",
        ...         "targets": "medalign-demo/targets.parquet",
        ...         "anchors": "medalign-demo/anchors.parquet",
        ...     },
        ...     "translation": {"minimum_r2": -1.0, "minimum_skill": None},  # four images are too few
        ...     "training": {
        ...         "steps": 1,
        ...         "targets_per_step": 2,
        ...         "anchors_per_step": 2,
        ...         "dataloader_num_workers": 0,
        ...         "device": "cpu",
        ...     },
        ...     "report": {"images": 0},  # no answers and probes before and after
        ... }
        >>> plan = medalign.align(settings, dry_run=True)
        >>> plan.summary()["images_per_pass"]
        4
        >>> report = medalign.align(settings, "runs/aligned")
        >>> report.result.training.steps
        1
    """
    folder = None if out is None else output_path(out)
    if folder is None and not dry_run:
        raise SettingsError("out is missing: pass a folder for the adapter, or dry_run=True to only check everything")
    check_overrides("overrides", overrides, "translation.keep=1.0")
    given = config if isinstance(config, Mapping) else optional_path("config", config)
    check_texts(control=control)
    settings = load_align_settings(given, folder, with_control(overrides, control), resume=resume)
    if folder is not None:
        check_align_out(folder, resume=resume)
    if dry_run or folder is None:
        return plan_align(settings)
    with progress_of(progress) as shown:
        return run_align(settings, folder, shown, resume=resume, measure=measure_changes)
