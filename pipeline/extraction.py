"""Stage one wired: a manifest or a folder of images becomes a teacher store; and what a store says about itself."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import polars as pl

from ..errors import InputError, PartialResult, SettingsError
from ..progress import Progress
from ..teacher_cache.extract import ExtractionReport, extract
from ..teacher_cache.geometry import Geometry, PatchGrid
from ..teacher_cache.prefetch import ImageSource
from ..teacher_cache.teachers.loading import load_teacher
from .devices import pick_device
from .hashing import misplaced_images
from .importers import ImportOptions, import_folder
from .manifest import DataUse, Manifest

RESTRICTIVENESS: tuple[DataUse, ...] = ("public", "credentialed", "private")
"""From free to closed; a store of mixed images takes the strictest class."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExtractionRequest:
    """What `medalign teacher extract` was asked for."""

    teacher: str
    weights: str
    out: Path
    manifest: Path | None
    images: Path | None
    root: Path | None = None
    grid: str = "24x24"
    geometry: Geometry = "pad"
    batch_size: int = 16
    shard_rows: int | None = None
    device: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    data_use: DataUse | None = None
    """Class of the images of `images`, `None` for private; a manifest has its own."""
    resume: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreReport:
    """A finished extraction."""

    report: ExtractionReport

    def summary(self) -> dict[str, object]:
        report = self.report
        return {
            "store": str(report.out),
            "images": report.images,
            "failures": len(report.failures),
            "shards_written": report.shards_done,
            "shards_kept_from_an_earlier_run": report.shards_reused,
            "seconds": round(report.seconds, 2),
            "images_per_second": round(report.images_per_second, 2),
            "share_waiting_for_images": round(report.decode_share, 3),
            "share_in_the_teacher": round(report.forward_share, 3),
            "share_waiting_for_the_disk": round(report.write_share, 3),
            "bytes": report.bytes,
            "root_sha256": report.root_sha256,
            "failed": [asdict(failure) for failure in report.failures],
        }

    def raise_for_failures(self) -> None:
        """Raise PartialResult where images of this run failed."""
        failures = self.report.failures
        if failures:
            shown = "\n".join(f"  {failure.image_hash[:12]}: {failure.reason}" for failure in failures[:20])
            raise PartialResult(
                f"{len(failures)} of {self.report.images} images have no row in {self.report.out}; its "
                f"failures.parquet lists them:\n{shown}\nAll others are there. Replace or drop these images; training "
                "refuses questions about them."
            )


def run_extraction(request: ExtractionRequest, progress: Progress) -> StoreReport:
    """Hash and plan the images, load the teacher, and write the store.

    Raises:
        SettingsError: the grid, the teacher's name or the device is wrong, or not exactly one source is given.
        InputError: images are missing, or the weights are not this teacher's.
        StoreError: the store exists, was begun with other settings, or the disk is full.
    """
    grid = parse_grid(request.grid)
    manifest = _manifest(request, progress)
    images = manifest.images()
    sources = [
        ImageSource(path=manifest.path_of(name), image_hash=digest)
        for name, digest in images.select("image", "image_hash").iter_rows()
    ]
    _require_files(sources, manifest.root)
    teacher = load_teacher(request.teacher, request.weights, pick_device(request.device), request.dtype)
    report = extract(
        teacher,
        sources,
        request.out,
        grid=grid,
        geometry=request.geometry,
        batch_size=request.batch_size,
        shard_rows=request.shard_rows,
        data_use=strictest(manifest.frame),
        resume=request.resume,
        progress=progress,
    )
    return StoreReport(report=report)


def strictest(frame: pl.DataFrame) -> DataUse:
    """The most restrictive data-use class of a manifest's rows."""
    present = set(frame["data_use"].to_list())
    return next(data_use for data_use in reversed(RESTRICTIVENESS) if data_use in present)


def parse_grid(text: str) -> PatchGrid:
    """Read `24x24`.

    Raises:
        SettingsError: it is no grid.
    """
    try:
        return PatchGrid.parse(text)
    except ValueError as error:
        raise SettingsError(f"--grid: {error}") from error


def show_teachers(*, as_json: bool) -> None:
    """Print the registry of teachers."""
    from ..teacher_cache.teachers import TEACHERS
    from .terminal import show_rows

    columns = ("name", "title", "grid", "width", "E_v", "weights")
    rows = [
        (spec.name, spec.title, str(spec.grid), spec.width, spec.features, spec.weights_hint)
        for spec in TEACHERS.values()
    ]
    show_rows("teachers", columns, rows, as_json=as_json)


def _manifest(request: ExtractionRequest, progress: Progress) -> Manifest:
    if request.manifest is not None and request.images is None:
        if request.data_use is not None:
            raise SettingsError("--data-use is for --images: a manifest says itself who may see its data")
        return Manifest.read(request.manifest, request.root)
    if request.images is not None and request.manifest is None:
        if request.root is not None:
            raise SettingsError("--root is for --manifest: the images of --images are where that folder says")
        return import_folder(request.images, ImportOptions(data_use=request.data_use), progress)
    raise SettingsError("give the images as either --manifest FILE or --images FOLDER, not both and not neither")


def _require_files(sources: Sequence[ImageSource], root: Path) -> None:
    """A file that is gone is no damaged image: the whole run was started with a wrong root, or the data moved."""
    if not sources:
        raise InputError("the manifest has no images: there is nothing to extract")
    missing = [source.path for source in sources if not source.path.exists()]
    if missing:
        raise misplaced_images(missing, len(sources), root, "give their folder with --root")
