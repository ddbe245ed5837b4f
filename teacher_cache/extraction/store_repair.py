"""Repairing a damaged store: from its own intact files, and from the images if row data is lost."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import InputError, StoreError
from ...plain_text import counted
from ...progress import Progress, Silent
from ..images import UnreadableImage, read_expected_image
from ..store.access.store_files import LocalFiles
from ..store.checking.partial_view import StoreView
from ..store.checking.restore import committed_root, damaged_shards, restore
from ..store.checking.shard_check import check_shard
from ..store.checking.swapped_files import put_back
from ..store.checking.verification import examine
from ..store.file_names import GROUP_FILE, MANIFEST_FILE, SIGNATURE_FILE
from ..store.filesystem.durable_files import remove_leftovers
from ..store.filesystem.locks import RunLock
from ..store.reading.root_digest import version_note
from ..store.records import ledger
from ..store.records.ledger import UNREADABLE_KEY, ShardRecord
from ..store.signatures.signature import is_signed, removed_note
from ..store.store_errors import GET_IT_AGAIN, AlteredStore, DamagedStore
from ..store.store_problem import Problem, distinct
from ..store.writing.closing import close_store
from ..store.writing.writer import StoreWriter
from ..workers.messages import ShardJob
from ..workers.prefetch import ImageSource
from .recompute import Recomputing
from .store_plan import assign_images


@dataclass(frozen=True, kw_only=True, slots=True)
class RepairedShard:
    """A shard that was recomputed."""

    shard: int
    rows: int
    equal: int | None
    """Number of rows that have the committed digest; `None` if the committed digests are lost."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RepairReport:
    """What was damaged, what was repaired, and what is still damaged."""

    store: Path
    found: tuple[Problem, ...]
    restored: tuple[str, ...]
    """Files that were rewritten from other files of the store."""
    shards: tuple[RepairedShard, ...]
    lacking: dict[int, str]
    """Damaged shards that were not repaired -> what is needed to recompute them."""
    left: tuple[Problem, ...]
    root_before: str | None
    root_after: str | None
    """`None` if the store could not be finished."""
    signature_removed: bool
    """Whether the store had a damaged or missing signature and is unsigned now."""


def repair(store: Path, recomputing: Recomputing | None = None, progress: Progress | None = None) -> RepairReport:
    """Repair the damage that `verify` finds; intact shards and unexpected files are not touched.

    Small files that have each other's names are swapped back first. Damaged shards are recomputed if their images are
    available. Meanwhile the store is unfinished, so after a kill the same call completes the repair.

    Raises:
        StoreError: another run is writing to the store, it was never finished, its header is lost, or the teacher does
            not reproduce the intact rows.
        AlteredStore: all files match their digests, but the root digest or the signature does not match the content; a
            repair would only hide that.
    """
    progress = progress or Silent()
    with RunLock(store):
        if removed := remove_leftovers(store):
            progress.note(f"removed {counted(len(removed), 'temporary file')} of killed commands from {store}")
        exchanged = put_back(store)
        view, problems = examine(LocalFiles(store), quick=False, progress=progress)
        _require_finished(view, problems)
        _require_unaltered(view, problems)
        if view.header.format_version == 1:
            progress.note(version_note(str(store)))
        was_signed = is_signed(store) or view.listed(SIGNATURE_FILE) is not None
        damaged = damaged_shards(view, problems)
        restored = [*(problem.key for problem in exchanged), *restore(view, problems)]
        jobs, lacking = _jobs(view, damaged, recomputing)
        if jobs and recomputing is not None:
            sound = [record for shard, record in view.records.items() if shard not in damaged]
            recomputing.check(view.files, view.header, sound)
            (store / MANIFEST_FILE).unlink(missing_ok=True)
            recomputing.compute(StoreWriter(store), jobs)
        shards = tuple(_compare_with_committed(store, view.records.get(job.shard), job.shard) for job in jobs)
        root = None
        if problems and _can_be_closed(view, problems, restored):
            root = close_store(store, view.header)
            restored += [problem.key for problem in problems if problem.kind == "derived"]
        signature_removed = root is not None and was_signed and not is_signed(store)
        if signature_removed:
            progress.note(removed_note(store, "its signature was damaged or missing, so the store is unsigned now"))
        return RepairReport(
            store=store,
            found=distinct([*exchanged, *problems]),
            restored=tuple(dict.fromkeys(restored)),
            shards=shards,
            lacking=lacking,
            left=_remaining_problems(store, problems, [job.shard for job in jobs], lacking, progress),
            root_before=committed_root(view),
            root_after=root if problems else committed_root(view),
            signature_removed=signature_removed,
        )


def _require_finished(view: StoreView, problems: Sequence[Problem]) -> None:
    location = view.files.location
    if not view.was_finished:
        raise StoreError(
            f"{location} was never finished. To complete it instead of repairing it, run the same `medalign teacher "
            "extract` with --resume"
        )
    undecided = [problem for problem in problems if problem.kind == "content" and problem.key == GROUP_FILE]
    if undecided:
        raise StoreError(f"{location} cannot be repaired: {undecided[0]}")


def _require_unaltered(view: StoreView, problems: Sequence[Problem]) -> None:
    """Refuse to repair an altered store, because the repair would give it a valid root digest."""
    changed = [str(problem) for problem in problems if problem.kind in ("root", "signature")]
    if changed:
        raise AlteredStore(f"{view.files.location} was not repaired: {changed[0]}. {GET_IT_AGAIN.capitalize()}")


def _jobs(
    view: StoreView, shards: Sequence[int], recomputing: Recomputing | None
) -> tuple[list[ShardJob], dict[int, str]]:
    """The jobs for damaged shards, and for all other damaged shards what is needed to recompute them."""
    if not shards:
        return [], {}
    if recomputing is None:
        return [], dict.fromkeys(shards, "the teacher's weights (--weights) and the images (--manifest or --images)")
    by_name = {recomputing.name(source.image_hash): source for source in recomputing.sources()}
    jobs, lacking = [], {}
    for shard in shards:
        try:
            jobs.append(_job(view, shard, by_name, recomputing.name))
        except (InputError, DamagedStore) as error:
            lacking[shard] = str(error)
    return jobs, lacking


def _job(view: StoreView, shard: int, by_name: dict[str, ImageSource], name: Callable[[str], str]) -> ShardJob:
    """The job for a shard, whose images must all be given and readable.

    Raises:
        InputError: some images are not.
    """
    record = view.records.get(shard)
    if record is None:
        assert isinstance(view.files, LocalFiles)
        assigned, _ = assign_images(view.files.path, view.header, list(by_name.values()), name)
        return ShardJob(shard, view.header.profile, tuple(assigned[row] for row in view.header.shard_range(shard)))
    planned = {image.row: image.image_hash for image in record.images}
    reasons = {image: reason for image in planned.values() if (reason := _unusable(by_name.get(image)))}
    if reasons:
        first, reason = next(iter(reasons.items()))
        raise InputError(f"{len(reasons)} of its {len(planned)} images; first: {first[:12]}, {reason}")
    failed = {failure.row: _failing_source(failure, by_name) for failure in record.failures}
    images = {row: by_name[image] for row, image in planned.items()} | failed
    return ShardJob(shard, record.profile, tuple(images[row] for row in sorted(images)))


def _unusable(source: ImageSource | None) -> str | None:
    """The reason why an image cannot be recomputed, or `None`."""
    if source is None:
        return "not among the given images"
    try:
        read_expected_image(source.path, source.image_hash, source.pixel_hash)
    except UnreadableImage as error:
        return error.reason
    return None


def _failing_source(failure: ledger.FailureRecord, by_name: dict[str, ImageSource]) -> ImageSource:
    """A source that fails again, so that the batches are the same as in the first run.

    An image fails in its batch only if the teacher's output was not finite; all others fail before the batch.
    """
    source = by_name.get(failure.image_hash)
    if source is not None and failure.reason.endswith("is not finite"):
        return source
    return ImageSource(Path(), failure.image_hash)


def _compare_with_committed(store: Path, before: ShardRecord | None, shard: int) -> RepairedShard:
    """Compare a recomputed shard with its committed record; failures keep their recorded reasons."""
    record = ledger.read_record(store, shard)
    if before is None:
        return RepairedShard(shard=shard, rows=len(record.images), equal=None)
    if [failure.row for failure in record.failures] == [failure.row for failure in before.failures]:
        ledger.commit(store, record.model_copy(update={"failures": before.failures}))
    digests = {image.row: image.sha256 for image in before.images}
    equal = sum(digests.get(image.row) == image.sha256 for image in record.images)
    return RepairedShard(shard=shard, rows=len(record.images), equal=equal)


def _can_be_closed(view: StoreView, problems: Sequence[Problem], restored: Sequence[str]) -> bool:
    """Whether all sources of the derived files are known."""
    assert isinstance(view.files, LocalFiles)
    lost_reasons = any(problem.key == UNREADABLE_KEY for problem in problems) and UNREADABLE_KEY not in restored
    committed = set(ledger.committed_shards(view.files.path))  # other records are unexpected files
    return not lost_reasons and committed.issuperset(range(view.header.shards))


def _remaining_problems(
    store: Path, found: Sequence[Problem], computed: Sequence[int], lacking: dict[int, str], progress: Progress
) -> tuple[Problem, ...]:
    """The remaining problems: small files, sizes and the recomputed shards are checked again."""
    view, problems = examine(LocalFiles(store), quick=True, progress=progress)
    unread = [problem for problem in found if problem.shard in lacking]
    read = [problem for shard in computed for problem in check_shard(store, view.header, view.records[shard])]
    return distinct([*problems, *unread, *read])
