"""Planning a stage-one run before anything is written: distinct images, rows, shards and header."""

from collections.abc import Callable, Sequence
from pathlib import Path

from ... import __version__
from ...choices import Profile
from ...errors import InputError
from ..store.access.store_files import LocalFiles
from ..store.file_names import FAILURES_FILE, INDEX_FILE
from ..store.format.header import StoreHeader, default_shard_rows, plan_digest
from ..store.format.profiles import row_arrays
from ..store.records.index import read_columns
from ..store.records.ledger import committed_shards, read_record
from ..store.store_errors import DamagedStore, TargetInUse
from ..teachers.forward import Teacher
from ..workers.messages import ShardJob
from ..workers.prefetch import ImageSource
from .extraction_options import RECORDED, ExtractionOptions

DEFAULT_BATCH_SIZE = 16
DEFAULT_DEVICE_BATCH_SIZE = 64
"""For a GPU, which 16 images do not fully use."""

DEFAULT_PROFILE: Profile = "float16"

_IN_HEADER = {"license": "licence"}
"""Options that the store format spells differently."""


def distinct_sources(images: Sequence[ImageSource]) -> list[ImageSource]:
    """The first source of every hash, in the order of first occurrence."""
    first: dict[str, ImageSource] = {}
    for source in images:
        first.setdefault(source.image_hash, source)
    return list(first.values())


def default_batch_size(device: str) -> int:
    """Default images per forward pass for a new store, given the device type of its first run."""
    return DEFAULT_BATCH_SIZE if device == "cpu" else DEFAULT_DEVICE_BATCH_SIZE


def new_header(
    teacher: Teacher,
    hashes: Sequence[str],
    options: ExtractionOptions,
    threads: int,
    batch_size: int = DEFAULT_BATCH_SIZE,
) -> StoreHeader:
    """Header of a store of the images with `hashes`; `threads` and `batch_size` are the defaults for unset options."""
    spec = teacher.spec
    profile = options.profile or DEFAULT_PROFILE
    arrays = len(row_arrays(profile, spec.grid, options.grid, spec.width))
    return StoreHeader(
        teacher=spec.name,
        weights_sha256=teacher.weights_sha256,
        features=spec.features,
        dtype=teacher.dtype,
        image_size=spec.image_size,
        mean=spec.mean,
        std=spec.std,
        geometry=options.geometry,
        jpeg_scale=options.jpeg_scale or "full",
        native_grid=spec.grid,
        grid=options.grid,
        width=spec.width,
        profile=profile,
        hashing=options.hashing,
        segments=(len(hashes),),
        shard_rows=options.shard_rows or default_shard_rows(len(hashes), arrays),
        plan_sha256=plan_digest(hashes),
        batch_size=options.batch_size or batch_size,
        threads=options.threads or threads,
        tolerance=options.tolerance,
        data_use=options.data_use,
        title=options.title,
        licence=options.license,
        created_by=f"medalign {__version__}",
    )


def check_continuation(out: Path, stored: StoreHeader, teacher: Teacher, options: ExtractionOptions) -> None:
    """Check that this run's settings match the store at `out`; unset options default to the store's.

    Raises:
        TargetInUse: the store was created with different settings; the message lists all differences.
    """
    spec = teacher.spec
    requested: dict[str, object] = {
        "teacher": spec.name,
        "weights_sha256": teacher.weights_sha256,
        "features": spec.features,
        "dtype": teacher.dtype,
        "image_size": spec.image_size,
        "mean": spec.mean,
        "std": spec.std,
        "native_grid": spec.grid,
        "width": spec.width,
        **{name: value for name in RECORDED if (value := getattr(options, name)) is not None},
    }
    differences = [
        f"{name}: {value}, not {existing}"
        for name, value in requested.items()
        if value != (existing := getattr(stored, _IN_HEADER.get(name, name)))
    ]
    if differences:
        raise TargetInUse(
            f"{out} was created with different settings and cannot be continued: this run has "
            f"{'; '.join(differences)}. Use the settings of the first run, or choose another --out"
        )


def recorded_plan(store: Path, header: StoreHeader) -> list[str]:
    """The planned image hashes in row order, from the readable ones of index, failures and ledger.

    Raises:
        DamagedStore: together they do not contain the plan.
    """
    planned: dict[int, str] = {}
    for key in (INDEX_FILE, FAILURES_FILE):
        if (store / key).is_file():
            try:
                columns = read_columns(LocalFiles(store), key, ["row", "image_hash"], header).to_pydict()
            except DamagedStore:
                continue
            planned.update(zip(columns["row"], columns["image_hash"], strict=True))
    for shard in committed_shards(store):
        try:
            record = read_record(store, shard)
        except DamagedStore:
            continue
        planned.update((image.row, image.image_hash) for image in record.images)
        planned.update((failure.row, failure.image_hash) for failure in record.failures)
    if len(planned) < header.planned:  # avoids a loop over a huge number of claimed rows
        raise _lost_plan_error(store)
    hashes = [planned.get(row, "") for shard in range(header.shards) for row in header.shard_range(shard)]
    if plan_digest(hashes) != header.plan_sha256:
        raise _lost_plan_error(store)
    return hashes


def _lost_plan_error(store: Path) -> DamagedStore:
    return DamagedStore(
        f"the plan of {store} cannot be read: its index is damaged. Run the command again with exactly the images of "
        "the first run, in the same order"
    )


def assign_images(
    store: Path, header: StoreHeader, sources: Sequence[ImageSource], name: Callable[[str], str]
) -> tuple[dict[int, ImageSource], int]:
    """Assign an image to every planned row; also returns how many of the (distinct) `sources` are not planned.

    `name` maps an image's plain hash to its hash in the store.

    Raises:
        InputError: planned images are not among `sources`.
        DamagedStore: the plan of the store cannot be read.
    """
    by_hash = {name(source.image_hash): source for source in sources}
    exact = plan_digest(by_hash) == header.plan_sha256
    planned = list(by_hash) if exact else recorded_plan(store, header)
    missing = sum(image not in by_hash for image in planned)
    if missing:
        raise InputError(
            f"{missing} of the {len(planned)} planned images of {store} are not among the given ones: continue it with "
            "the manifest or folder of the first run, and no smaller --limit"
        )
    rows = [row for shard in range(header.shards) for row in header.shard_range(shard)]
    assigned = {row: by_hash[image] for row, image in zip(rows, planned, strict=True)}
    return assigned, len(by_hash.keys() - set(planned))


def shard_jobs(header: StoreHeader, shards: Sequence[int], images: dict[int, ImageSource]) -> list[ShardJob]:
    """The jobs for some shards."""
    return [
        ShardJob(shard, header.profile, tuple(images[row] for row in header.shard_range(shard))) for shard in shards
    ]
