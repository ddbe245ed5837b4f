"""`medalign student inspect` as a function."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from ..choices import DtypeChoice
from ..errors import SettingsError
from ..path_checks import path_text
from ..pipeline.inspection.inspect_request import InspectRequest
from ..pipeline.inspection.inspect_students import InspectionReport, run_inspection
from ..progress import Progress
from .arguments import (
    AnyPath,
    check_choices,
    check_positive,
    check_texts,
    check_whole_numbers,
    local_path,
    optional_path,
    output_path,
    progress_of,
)


def inspect(
    student: AnyPath,
    manifest: AnyPath,
    out: AnyPath,
    *,
    adapters: Sequence[AnyPath] = (),
    store: AnyPath | None = None,
    hash_key: AnyPath | None = None,
    split: str = "test",
    root: AnyPath | None = None,
    limit: int = 200,
    shown: int = 50,
    max_new_tokens: int = 64,
    batch_size: int = 8,
    template: str | None = None,
    device: str | None = None,
    dtype: DtypeChoice = "auto",
    seed: int = 0,
    progress: bool | Progress = False,
) -> InspectionReport:
    """Look into a student before and after training, as `medalign student inspect` does.

    Args:
        student: A base model folder, or an adapter folder from `train`, which records its base.
        manifest: The manifest file (`medalign data import`).
        out: Folder of the results: `report.html`, `inspection.json`, Parquet tables and figures.
        adapters: Adapter folders of the same base, each compared with the base.
        store: Path or URL of a teacher store that has the images; default: no comparison with a teacher.
        hash_key: Key file of a store with keyed image hashes.
        split: Split of the manifest.
        root: Folder that image paths are relative to; default: the one in the manifest.
        limit: Images in the random sample.
        shown: Questions with their own card in the report.
        max_new_tokens: Maximum length of an answer, in tokens.
        batch_size: Questions per forward pass.
        template: Prompt template; default: that of the first adapter, else of the base.
        device: `cpu`, `cuda`, `cuda:1` or `mps`; default: the best available.
        dtype: Precision of the forward pass; `auto`: that of the adapter's training, else that of the stored base.
        seed: Seed of the sample, the probes and t-SNE.
        progress: True shows bars on the terminal; or any object with `start`, `advance` and `note`.

    Returns:
        The verdicts and findings in sentences, and the folder; `summary()` is what `--json` prints.

    Raises:
        InputError: The split has no image, files are missing, a student or mask cannot be read, or `out` is in use.
        SettingsError: A device or template does not exist, or an argument is invalid.
        StoreError: The store does not fit the student, or lacks images.

    Examples:
        >>> import medalign
        >>> report = medalign.inspect(
        ...     "medalign-demo/student",
        ...     "medalign-demo/phantoms/manifest.parquet",
        ...     "results/inspection",
        ...     limit=4,
        ...     shown=1,
        ...     max_new_tokens=4,
        ...     template="plain",
        ... )
        >>> report.arms
        ('base',)
    """
    check_choices(dtype=(str(dtype), get_args(DtypeChoice)))
    check_positive(limit=(limit,), max_new_tokens=(max_new_tokens,), batch_size=(batch_size,))
    check_whole_numbers(shown=shown, seed=seed)
    check_texts(split=(split,), template=template)
    request = InspectRequest(
        student=local_path("student", student),
        adapters=_folders(adapters),
        manifest=local_path("manifest", manifest),
        root=optional_path("root", root),
        store=None if store is None else path_text("store", store),
        hash_key=optional_path("hash_key", hash_key),
        split=split,
        limit=limit,
        shown=shown,
        template=template,
        device=device,
        dtype=dtype,
        batch_size=batch_size,
        max_new_tokens=max_new_tokens,
        seed=seed,
    )
    with progress_of(progress) as bars:
        return run_inspection(request, output_path(out), bars)


def _folders(adapters: Any) -> tuple[Path, ...]:
    """Adapter folders as paths; a single path is not a list of them.

    Raises:
        SettingsError: They are not a list of paths.
    """
    if not isinstance(adapters, list | tuple):
        raise SettingsError(f"adapters must be a list of folders, not {adapters!r}")
    return tuple(local_path("adapters", adapter) for adapter in adapters)
