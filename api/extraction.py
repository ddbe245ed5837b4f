"""Stage one: `medalign teacher extract` as a function."""

from typing import get_args

from ..choices import DataUse, Dtype, EngineName, Geometry, JpegScale, Profile
from ..pipeline.extraction.extract import CrewRequest, ExtractionRequest, run_extraction
from ..pipeline.extraction.image_sources import ImageRequest
from ..pipeline.extraction.summary import StoreReport
from ..progress import Progress
from .arguments import (
    AnyPath,
    check_choices,
    check_grid,
    check_positive,
    check_texts,
    named_output,
    optional_path,
    progress_of,
)


def extract(
    out: AnyPath,
    *,
    teacher: str,
    weights: AnyPath,
    manifest: AnyPath | None = None,
    images: AnyPath | None = None,
    root: AnyPath | None = None,
    data_use: DataUse | None = None,
    grid: str = "24x24",
    geometry: Geometry = "pad",
    jpeg_scale: JpegScale | None = None,
    dtype: Dtype = "float32",
    profile: Profile | None = None,
    tolerance: float | None = None,
    batch_size: int | None = None,
    threads: int | None = None,
    shard_rows: int | None = None,
    device: str | None = None,
    workers: int = 1,
    decode_workers: int | None = None,
    engine: EngineName = "local",
    task: str | None = None,
    hash_key: AnyPath | None = None,
    limit: int | None = None,
    title: str | None = None,
    license: str | None = None,
    resume: bool = False,
    progress: bool | Progress = False,
) -> StoreReport:
    """Run a teacher once on every image and write E_v and E_a to a store, as `medalign teacher extract` does.

    Args:
        out: Folder of the new store.
        teacher: Name of the teacher (`medalign teacher list`).
        weights: The teacher's weights: a file, a folder, or `hf-hub:OWNER/NAME`.
        manifest: Extract the images of this manifest. Pass exactly one of `manifest` and `images`.
        images: Extract all images under this folder.
        root: Folder that the manifest's image paths are relative to; default: the one in the manifest.
        data_use: `public`, `credentialed` or `private`, for `images`; default: `private`. A manifest has its own.
        grid: Grid of the student's image tokens, ROWSxCOLUMNS.
        geometry: `pad` (the square that the student sees) or `crop`.
        jpeg_scale: `reduced` decodes large JPEGs at a smaller size; faster, but changes the rows.
        dtype: Precision of the forward pass.
        profile: How rows are stored (docs/stores.md); default: `float16`.
        tolerance: Largest max|dS| of a row; a shard that exceeds it is stored in a wider profile.
        batch_size: Images per forward pass; default: 16, or 64 on a GPU.
        threads: CPU threads per worker; default: cores / workers.
        shard_rows: Images per shard; default: depends on the number of images.
        device: `cpu`, `cuda`, `cuda:1` or `mps`; default: the best available.
        workers: Worker processes, each with a copy of the teacher.
        decode_workers: Image-decoding processes per worker; default: all cores but one on a GPU, threads on a CPU.
        engine: `local`, or `ray` for Ray actors on the cluster at RAY_ADDRESS.
        task: `I/N`: only part I of N, counted from 0; `medalign teacher finish` finishes the store.
        hash_key: Key file, for a store with keyed image hashes.
        limit: Extract only the first N images.
        title: Title of the store, for its card.
        license: License of the images, such as CC-BY-4.0, for the store's card.
        resume: Continue an interrupted extraction.
        progress: True shows bars on the terminal; or any object with `start`, `advance` and `note`.

    Returns:
        The report of the run: `report` has the counts, and `summary()` is what the command prints.

    Raises:
        SettingsError: An argument is invalid, or this machine cannot satisfy it.
        InputError: Images are missing, or the weights are not this teacher's.
        StoreError: The store exists, was started with other settings, or the disk is full.
        PartialResult: The store is finished, but some images have no row; the error's `report` is the record.

    Examples:
        >>> import medalign
        >>> report = medalign.extract(
        ...     "stores/phantoms.zarr",
        ...     teacher="phantom-tiny",
        ...     weights="medalign-demo/teacher.safetensors",
        ...     manifest="medalign-demo/phantoms/manifest.parquet",
        ...     grid="8x8",
        ...     profile="int8",
        ...     limit=4,
        ... )
        >>> report.summary()["images"]
        4
        >>> medalign.open_store("stores/phantoms.zarr").header.profile
        'int8'
    """
    check_choices(
        data_use=(data_use, (None, *get_args(DataUse))),
        geometry=(geometry, get_args(Geometry)),
        jpeg_scale=(jpeg_scale, (None, *get_args(JpegScale))),
        dtype=(dtype, get_args(Dtype)),
        profile=(profile, (None, *get_args(Profile))),
        engine=(engine, get_args(EngineName)),
    )
    check_positive(
        batch_size=batch_size,
        threads=threads,
        shard_rows=shard_rows,
        workers=(workers,),
        decode_workers=decode_workers,
        limit=limit,
    )
    check_texts(task=task, title=title, license=license, device=device)
    check_grid(grid)
    request = ExtractionRequest(
        teacher=teacher,
        weights=str(weights),
        out=named_output(out),
        images=ImageRequest(
            manifest=optional_path("manifest", manifest),
            images=optional_path("images", images),
            root=optional_path("root", root),
            data_use=data_use,
            limit=limit,
        ),
        crew=CrewRequest(device=device, engine=engine, workers=workers, decode_workers=decode_workers),
        grid=grid,
        geometry=geometry,
        jpeg_scale=jpeg_scale,
        dtype=dtype,
        profile=profile,
        tolerance=tolerance,
        batch_size=batch_size,
        threads=threads,
        shard_rows=shard_rows,
        title=title,
        license=license,
        hash_key=optional_path("hash_key", hash_key),
        resume=resume,
        task=task,
    )
    with progress_of(progress) as shown:
        report = run_extraction(request, shown)
        report.note_rest(shown)
    report.raise_for_failures()
    return report
