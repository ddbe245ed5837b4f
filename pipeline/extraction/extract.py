"""Stage one: extract a teacher store from a manifest or a folder of images, or extend one."""

import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from ...choices import Dtype, EngineName
from ...errors import SettingsError, StoreError
from ...progress import Progress
from ...teacher_cache.extraction.extension import extend
from ...teacher_cache.extraction.extraction_options import ExtractionOptions, StoreOptions
from ...teacher_cache.extraction.stage_one import ExtractionReport, TeacherRecipe, extract, finish
from ...teacher_cache.extraction.store_plan import DEFAULT_PROFILE
from ...teacher_cache.geometry.patch_grid import PatchGrid
from ...teacher_cache.images import CHANGED
from ...teacher_cache.sharing.data_use_gate import strictest
from ...teacher_cache.store.format.header import default_shard_rows
from ...teacher_cache.store.format.keyed_hashes import HashKey, given_key, naming
from ...teacher_cache.store.format.profiles import row_arrays
from ...teacher_cache.store.records.zarr_metadata import read_header
from ...teacher_cache.teachers import teacher_spec
from ...teacher_cache.teachers.teacher_weights import HUB_PREFIX
from ...teacher_cache.workers.engines import Crew
from ...teacher_cache.workers.task import parse_task
from ..devices import pick_device
from .image_sources import FoundSources, ImageRequest, find_sources
from .summary import StoreReport


@dataclass(frozen=True, kw_only=True, slots=True)
class CrewRequest:
    """The processes of a run."""

    device: str | None = None
    engine: EngineName = "local"
    workers: int = 1
    decode_workers: int | None = None
    """Image-decoding processes per worker; `None`: threads or processes, depending on device and cores."""

    def crew(self) -> Crew:
        """The corresponding worker pool."""
        return Crew(
            engine=self.engine,
            workers=self.workers,
            decode_workers=self.decode_workers,
            decode_in=None if self.decode_workers is None else "processes",
        )


@dataclass(frozen=True, kw_only=True)
class ExtractionRequest(StoreOptions):
    """The options of `medalign teacher extract`."""

    teacher: str
    weights: str
    out: Path
    images: ImageRequest
    crew: CrewRequest = field(default_factory=CrewRequest)
    grid: str = "24x24"
    """Grid of the student's image tokens, `ROWSxCOLUMNS`."""
    dtype: Dtype = "float32"
    """Precision of the teacher's forward pass."""
    hash_key: Path | None = None
    resume: bool = False
    task: str | None = None
    """`I/N`: part I of N, counted from 0."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExtensionRequest:
    """The options of `medalign store extend`."""

    store: Path
    weights: str
    images: ImageRequest
    crew: CrewRequest = field(default_factory=CrewRequest)
    hash_key: Path | None = None
    retry_failed: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class FinishedStore:
    """A store that `medalign teacher finish` finished."""

    store: Path
    root_sha256: str

    def summary(self) -> dict[str, object]:
        return {"store": str(self.store), "root_sha256": self.root_sha256}


def run_extraction(request: ExtractionRequest, progress: Progress) -> StoreReport:
    """Hash and plan the images, load the teacher, and write the store.

    Raises:
        SettingsError: An option is invalid, or this machine cannot satisfy it.
        InputError: Images are missing, or the weights are not this teacher's.
        StoreError: The store exists, was started with other settings, or the disk is full.
    """
    grid, task = parse_grid(request.grid), parse_task(request.task)
    if request.tolerance is not None and not _is_positive(request.tolerance):
        raise SettingsError("--tolerance must be above 0 and finite; omit it to keep every row in the store's profile")
    recipe = _recipe(request.teacher, request.weights, request.crew, request.dtype)
    hash_key = given_key(request.hash_key)
    found = find_sources(request.images, progress)
    shard_rows = request.shard_rows
    if found.left_out:
        progress.note(f"--limit {request.images.limit}: the first {len(found.sources)} of {found.available} images")
        shard_rows = shard_rows or _rows_for_all(request, grid, found.available)
    options = ExtractionOptions(
        **_store_options(request) | {"shard_rows": shard_rows},
        grid=grid,
        data_use=found.data_use,
        hash_key=hash_key,
        unreadable=found.unreadable,
        resume=request.resume,
        task=task,
        crew=request.crew.crew(),
    )
    report = extract(recipe, found.sources, request.out, options, progress)
    return _store_report(report, found, hash_key)


def run_extension(request: ExtensionRequest, progress: Progress) -> StoreReport:
    """Add the images that a store does not have yet.

    Raises:
        SettingsError: An option is invalid, or this machine cannot satisfy it.
        InputError: Images are missing, or the weights are not this teacher's.
        StoreError: The store is unfinished, has other weights or another key, or a less strict data-use class than
            the new images.
    """
    header = read_header(request.store)
    recipe = _recipe(header.teacher, request.weights, request.crew, header.dtype)
    hash_key = given_key(request.hash_key)
    found = find_sources(request.images, progress)
    if strictest([found.data_use, header.data_use]) != header.data_use:
        raise StoreError(
            f"the data-use class of {request.store} is {header.data_use}, but that of these images is "
            f"{found.data_use}: extract them to a separate store with `medalign teacher extract`"
        )
    report = extend(
        recipe,
        found.sources,
        request.store,
        unreadable=found.unreadable,
        retry_failed=request.retry_failed,
        hash_key=hash_key,
        crew=request.crew.crew(),
        progress=progress,
    )
    return _store_report(report, found, hash_key)


def finish_store(store: Path) -> FinishedStore:
    """Finish a store that several tasks wrote.

    Raises:
        StoreError: Shards are missing, or a task is still writing.
    """
    return FinishedStore(store=store, root_sha256=finish(store))


def parse_grid(text: str) -> PatchGrid:
    """Parse `24x24`.

    Raises:
        SettingsError: It is not a grid.
    """
    try:
        return PatchGrid.parse(text)
    except ValueError as error:
        raise SettingsError(f"--grid: {error}") from error


def _is_positive(tolerance: Any) -> bool:
    return isinstance(tolerance, int | float) and 0 < tolerance < math.inf


def _store_options(request: ExtractionRequest) -> dict[str, Any]:
    return {option.name: getattr(request, option.name) for option in fields(StoreOptions)}


def _rows_for_all(request: ExtractionRequest, grid: PatchGrid, images: int) -> int | None:
    """Rows per shard of a new store with --limit: as for all images, because the others may be added later."""
    if request.out.exists():
        return None
    spec = teacher_spec(request.teacher)
    arrays = row_arrays(request.profile or DEFAULT_PROFILE, spec.grid, grid, spec.width)
    return default_shard_rows(images, len(arrays))


def _store_report(report: ExtractionReport, found: FoundSources, hash_key: HashKey | None) -> StoreReport:
    name = naming(hash_key)
    named = [(name(source.image_hash), source.path) for source in found.sources]
    failed = {failure.image_hash for failure in report.failures if failure.reason == CHANGED}
    files = dict(reversed(named))  # of equal images, the first file
    changed = tuple(path for image_hash, path in named if image_hash in failed)
    return StoreReport(report=report, found=found, files=files, changed=changed)


def _recipe(teacher: str, weights: str, crew: CrewRequest, dtype: Dtype) -> TeacherRecipe:
    """The recipe for worker processes: paths are absolute, and with Ray the nodes choose their devices."""
    absolute = weights if weights.startswith(HUB_PREFIX) else str(Path(weights).absolute())
    device = crew.device if crew.engine == "ray" and crew.device else pick_device(crew.device)
    return TeacherRecipe(name=teacher, weights=absolute, device=device, dtype=dtype)
