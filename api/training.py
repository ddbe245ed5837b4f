"""Stage two: `medalign student train` as a function."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, overload

from ..errors import SettingsError
from ..pipeline.training.gpu_memory import parse_card
from ..pipeline.training.plan import plan_training
from ..pipeline.training.resume import load_run_settings
from ..pipeline.training.settings import Settings
from ..pipeline.training.settings_loading import Overrides, settings_of
from ..pipeline.training.train import TrainingReport, check_out, run_training
from ..pipeline.training.training_plan import TrainingPlan
from ..progress import Progress
from .arguments import AnyPath, check_overrides, check_texts, optional_path, output_path, progress_of

Config = AnyPath | Mapping[str, Any]


@overload
def train(
    config: Config | None = ...,
    out: AnyPath | None = ...,
    *,
    overrides: Overrides = ...,
    dry_run: Literal[False] = ...,
    card: str | None = ...,
    resume: bool = ...,
    progress: bool | Progress = ...,
) -> TrainingReport: ...


@overload
def train(
    config: Config | None = ...,
    out: AnyPath | None = ...,
    *,
    overrides: Overrides = ...,
    dry_run: Literal[True],
    card: str | None = ...,
    resume: bool = ...,
    progress: bool | Progress = ...,
) -> TrainingPlan: ...


def train(
    config: Config | None = None,
    out: AnyPath | None = None,
    *,
    overrides: Overrides = (),
    dry_run: bool = False,
    card: str | None = None,
    resume: bool = False,
    progress: bool | Progress = False,
) -> TrainingReport | TrainingPlan:
    """Train a LoRA student from a finished teacher store, as `medalign student train` does.

    Args:
        config: A YAML file, or its sections as a mapping (docs/training.md); default with `resume`: the one in `out`.
        out: Output folder of the adapter; optional only with `dry_run`.
        overrides: Settings to override: `{"alignment.beta": 0.06}`, or `["alignment.beta=0.06"]`.
        dry_run: Check everything and return the plan without training.
        card: With `dry_run`, compare the plan with a GPU that has this much memory, such as `24GB`.
        resume: Continue from the newest checkpoint in `out`.
        progress: True shows bars on the terminal; or any object with `start`, `advance` and `note`.

    Returns:
        The report of the run, or its plan with `dry_run`; `summary()` is what the command prints. After an interrupt
        (Ctrl-C) `report.result.interrupted` is true and `resume=True` continues.

    Raises:
        SettingsError: A setting is invalid, or does not fit the student or this machine.
        InputError: A split or an image is missing, the student is incomplete, or `out` contains something else.
        StoreError: The store does not fit the student, or training images have no row in it.

    Examples:
        >>> import medalign
        >>> settings = {
        ...     "student": {"path": "medalign-demo/student", "template": "plain"},
        ...     "data": {
        ...         "manifest": "medalign-demo/phantoms/manifest.parquet",
        ...         "store": "medalign-demo/store.zarr",
        ...     },
        ...     "alignment": {"layer": 3},
        ...     "lora": {"r": 4, "lora_alpha": 8},
        ...     "training": {
        ...         "max_steps": 1,
        ...         "per_device_train_batch_size": 2,
        ...         "dataloader_num_workers": 0,
        ...         "device": "cpu",
        ...     },
        ... }
        >>> plan = medalign.train(settings, dry_run=True)
        >>> plan.summary()["samples_per_step"]
        8
        >>> report = medalign.train(settings, "runs/phantoms", overrides={"training.gradient_accumulation_steps": 1})
        >>> report.result.steps
        1
    """
    folder = None if out is None else output_path(out)
    if folder is None and not dry_run:
        raise SettingsError("out is missing: pass a folder for the adapter, or dry_run=True to only check everything")
    if card is not None and not dry_run:
        raise SettingsError(
            f"card={card!r} only applies to the plan: add dry_run=True (training uses the GPU of this machine)"
        )
    check_texts(card=card)
    check_overrides("overrides", overrides, "alignment.beta=0.06")
    settings = _settings(config, overrides, folder, resume=resume)
    if folder is not None:
        check_out(folder, resume=resume)
    if dry_run or folder is None:
        return plan_training(settings, None if card is None else parse_card(card))
    with progress_of(progress) as shown:
        return run_training(settings, folder, shown, resume=resume)


def _settings(config: Config | None, overrides: Overrides, out: Path | None, *, resume: bool) -> Settings:
    if isinstance(config, Mapping):
        return settings_of(config, overrides)
    return load_run_settings(optional_path("config", config), out, overrides, resume=resume)
