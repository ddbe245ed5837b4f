"""`medalign study` as a function."""

from collections.abc import Mapping
from typing import Any, Literal, overload

from ..errors import SettingsError
from ..pipeline.studies.run_study import StudyReport, StudyRequest, run_study
from ..pipeline.studies.study_plan import StudyPlan, plan_study
from ..pipeline.studies.study_spec import load_study, study_of
from ..pipeline.training.gpu_memory import parse_card
from ..progress import Progress
from .arguments import AnyPath, check_texts, local_path, output_path, progress_of

Spec = AnyPath | Mapping[str, Any]


@overload
def study(
    spec: Spec,
    out: AnyPath | None = ...,
    *,
    read_test: bool = ...,
    dry_run: Literal[False] = ...,
    card: str | None = ...,
    task: str | None = ...,
    device: str | None = ...,
    progress: bool | Progress = ...,
) -> StudyReport: ...


@overload
def study(
    spec: Spec,
    out: AnyPath | None = ...,
    *,
    read_test: bool = ...,
    dry_run: Literal[True],
    card: str | None = ...,
    task: str | None = ...,
    device: str | None = ...,
    progress: bool | Progress = ...,
) -> StudyPlan: ...


def study(
    spec: Spec,
    out: AnyPath | None = None,
    *,
    read_test: bool = False,
    dry_run: bool = False,
    card: str | None = None,
    task: str | None = None,
    device: str | None = None,
    progress: bool | Progress = False,
) -> StudyReport | StudyPlan:
    """Run arms x regimes x seeds, as `medalign study` does; call it again to continue.

    Args:
        spec: A YAML file, or its content as a mapping (docs/study.md).
        out: Folder of the study; optional only with `dry_run`.
        read_test: Answer the test questions. This can be done once, and ends development.
        dry_run: Check everything and return the plan without training.
        card: With `dry_run`, compare memory with a GPU that has this much, such as `24GB`.
        task: `I/N`: this process is the I-th of N that share `out`, counted from 0.
        device: `cpu`, `cuda`, `cuda:1` or `mps`; default: that of the settings, else the best available.
        progress: True shows bars on the terminal; or any object with `start`, `advance` and `note`.

    Returns:
        The results, or the plan with `dry_run`; `summary()` is what `--json` prints.

    Raises:
        SettingsError: A setting of the specification or of an arm is invalid.
        InputError: Data are missing or too few, `out` contains something else, the development is unfinished with
            `read_test`, or the test questions were read with another specification.
        StoreError: A store does not fit the students, or lacks images.
        MedalignError: A training failed.
    """
    folder = None if out is None else output_path(out)
    check_texts(card=card, task=task, device=device)
    if folder is None and not dry_run:
        raise SettingsError("out is missing: pass a folder for the study, or dry_run=True to only check everything")
    if card is not None and not dry_run:
        raise SettingsError(f"card={card!r} only applies to the plan: add dry_run=True")
    if read_test and dry_run:
        raise SettingsError("read_test and dry_run are incompatible: pass only one of them")
    loaded = study_of(spec) if isinstance(spec, Mapping) else load_study(local_path("spec", spec))
    with progress_of(progress) as bars:
        if dry_run or folder is None:
            return plan_study(loaded, folder, None if card is None else parse_card(card), device, bars)
        return run_study(StudyRequest(spec=loaded, read_test=read_test, device=device, task=task), folder, bars)
