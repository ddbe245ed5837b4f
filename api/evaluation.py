"""`medalign student evaluate` and `medalign student compare` as functions."""

from collections.abc import Mapping
from typing import Any, get_args

from ..choices import DtypeChoice, EngineName
from ..path_checks import path_text
from ..pipeline.evaluation.batches.array_tasks import PartReport
from ..pipeline.evaluation.batches.dispatch import WorkRequest
from ..pipeline.evaluation.comparison.compare import ComparisonReport
from ..pipeline.evaluation.comparison.compare_request import ComparisonRequest, compare_students
from ..pipeline.evaluation.comparison.spec import ComparisonSpec, comparison_of, load_comparison
from ..pipeline.evaluation.evaluate import EvaluationReport, EvaluationRequest, run_evaluation
from ..progress import Progress
from .arguments import (
    AnyPath,
    check_choices,
    check_overrides,
    check_positive,
    check_texts,
    local_path,
    optional_path,
    output_path,
    progress_of,
)


def evaluate(
    student: AnyPath,
    manifest: AnyPath,
    out: AnyPath,
    *,
    adapter: AnyPath | None = None,
    split: str = "test",
    root: AnyPath | None = None,
    store: AnyPath | None = None,
    hash_key: AnyPath | None = None,
    decoding: str = "greedy",
    decoding_settings: Mapping[str, Any] | None = None,
    batch_size: int = 8,
    max_new_tokens: int = 128,
    limit: int | None = None,
    template: str | None = None,
    device: str | None = None,
    dtype: DtypeChoice = "auto",
    keep_lora_apart: bool = False,
    workers: int = 1,
    engine: EngineName = "local",
    threads: int | None = None,
    task: str | None = None,
    finish: bool = False,
    resume: bool = False,
    progress: bool | Progress = False,
) -> EvaluationReport | PartReport:
    """Answer the questions of a split and score the answers, as `medalign student evaluate` does.

    Args:
        student: A base model folder, or an adapter folder from `train`, which records its base.
        manifest: The manifest file (`medalign data import`).
        out: Folder of the results: `predictions.parquet` and `metrics.json`.
        adapter: The adapter folder, if `student` is its base.
        split: Split of the manifest.
        root: Folder that image paths are relative to; default: the one in the manifest.
        store: Path or URL of the teacher store of the images, for an adapter that was trained with
            `alignment.image_tokens: teacher`, and for no other.
        hash_key: Key file of a store with keyed image hashes.
        decoding: Name of a decoding method (`medalign student decodings`); the command's `--decode`.
        decoding_settings: Settings of the method, such as `{"alpha": 0.5}`; the command's `--set decode.alpha=0.5`.
        batch_size: Questions answered at once.
        max_new_tokens: Maximum length of an answer, in tokens.
        limit: Evaluate only the first N questions.
        template: Prompt template; default: that of the adapter, else of the base.
        device: `cpu`, `cuda`, `cuda:1` or `mps`; default: the best available.
        dtype: Precision of the forward pass; `auto`: that of the adapter's training, else that of the stored base.
        keep_lora_apart: Keep LoRA separate instead of merging it into the weights (slower).
        workers: Worker processes, each with a copy of the student.
        engine: `local`, or `ray` for Ray actors on the cluster at RAY_ADDRESS.
        threads: CPU threads per process; default: cores / processes.
        task: `I/N`: only part I of N, counted from 0; `finish` joins the parts.
        finish: Check that all tasks are done and write the results, without loading a student.
        resume: Continue an interrupted evaluation.
        progress: True shows bars on the terminal; or any object with `start`, `advance` and `note`.

    Returns:
        The scores and their files; `summary()` is what the command prints. With `task`, and under torchrun in every
        process but the first, a `PartReport`.

    Raises:
        InputError: The split does not exist or is empty, images are missing, the student cannot be read, or `out`
            contains another run.
        SettingsError: A device, template, decoding method or setting does not exist, or arguments are incompatible.

    Examples:
        >>> import medalign
        >>> report = medalign.evaluate(
        ...     "medalign-demo/arms/medalign",
        ...     "medalign-demo/phantoms/manifest.parquet",
        ...     "results/phantoms",
        ...     max_new_tokens=4,
        ...     limit=2,
        ... )
        >>> report.summary()["questions"]
        2
        >>> import polars
        >>> polars.read_parquet("results/phantoms/predictions.parquet").height
        2
    """
    check_choices(dtype=(str(dtype), get_args(DtypeChoice)), engine=(engine, get_args(EngineName)))
    check_positive(
        batch_size=(batch_size,),
        max_new_tokens=(max_new_tokens,),
        limit=limit,
        workers=(workers,),
        threads=threads,
    )
    check_texts(split=(split,), template=template, task=task)
    check_overrides("decoding_settings", decoding_settings or {}, "decode.alpha=0.5")
    request = EvaluationRequest(
        student=local_path("student", student),
        adapter=optional_path("adapter", adapter),
        manifest=local_path("manifest", manifest),
        root=optional_path("root", root),
        split=split,
        store=None if store is None else path_text("store", store),
        hash_key=optional_path("hash_key", hash_key),
        decode=decoding,
        overrides=decoding_settings or {},
        batch_size=batch_size,
        max_new_tokens=max_new_tokens,
        limit=limit,
        template=template,
        device=device,
        dtype=dtype,
        keep_lora_apart=keep_lora_apart,
        work=WorkRequest(engine=engine, workers=workers, threads=threads, task=task, finish=finish),
        resume=resume,
    )
    with progress_of(progress) as shown:
        return run_evaluation(request, output_path(out), shown)


def compare(
    spec: AnyPath | Mapping[str, Any],
    out: AnyPath,
    *,
    resume: bool = False,
    reanalyze: bool = False,
    device: str | None = None,
    workers: int = 1,
    engine: EngineName = "local",
    threads: int | None = None,
    task: str | None = None,
    finish: bool = False,
    progress: bool | Progress = False,
) -> ComparisonReport | PartReport:
    """Compare students, adapters, decodings and data sets, as `medalign student compare` does.

    Args:
        spec: A YAML file, or its keys as a mapping (docs/comparison.md).
        out: Folder of the answers and tables.
        resume: Continue an interrupted comparison.
        reanalyze: Score the saved answers again without loading a student.
        device: `cpu`, `cuda`, `cuda:1` or `mps`; default: the best available.
        workers: Worker processes, each with a copy of the student.
        engine: `local`, or `ray` for Ray actors on the cluster at RAY_ADDRESS.
        threads: CPU threads per process; default: cores / processes.
        task: `I/N`: only part I of N, counted from 0; `finish` joins the parts.
        finish: Check that all tasks are done and write the results, without loading a student.
        progress: True shows bars on the terminal; or any object with `start`, `advance` and `note`.

    Returns:
        The scores of every cell, and every difference with its confidence interval and p; `summary()` is what `--json`
        prints. With `task`, and under torchrun in every process but the first, a `PartReport`.

    Raises:
        SettingsError: The specification is invalid or differs from that of the comparison in `out`, or arguments are
            incompatible.
        InputError: Something in the specification is missing, or `out` contains something else.

    Examples:
        >>> import medalign
        >>> spec = {
        ...     "students": [{"name": "phantom", "path": "medalign-demo/student", "template": "plain"}],
        ...     "decodings": ["greedy", "beam"],
        ...     "data": [{"name": "phantoms", "manifest": "medalign-demo/phantoms/manifest.parquet", "limit": 2}],
        ...     "baseline": {"adapter": "base", "decoding": "greedy"},
        ...     "max_new_tokens": 4,
        ... }
        >>> report = medalign.compare(spec, "results/decodings")
        >>> [cell.decoding for cell in report.cells]
        ['greedy', 'beam']
    """
    check_choices(engine=(engine, get_args(EngineName)))
    check_positive(workers=(workers,), threads=threads)
    check_texts(task=task)
    folder = output_path(out)
    request = ComparisonRequest(
        spec=_comparison(spec),
        resume=resume,
        reanalyze=reanalyze,
        device=device,
        work=WorkRequest(engine=engine, workers=workers, threads=threads, task=task, finish=finish),
    )
    with progress_of(progress) as shown:
        return compare_students(request, folder, shown)


def _comparison(spec: AnyPath | Mapping[str, Any]) -> ComparisonSpec:
    return comparison_of(spec) if isinstance(spec, Mapping) else load_comparison(local_path("spec", spec))
