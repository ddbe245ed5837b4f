"""Checks and repairs of a store that need its teacher and images."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ...errors import SettingsError, StoreError
from ...plain_text import counted
from ...progress import Progress
from ...teacher_cache.extraction.recompute import TeacherAtHand
from ...teacher_cache.extraction.store_repair import RepairReport, repair
from ...teacher_cache.store.access.remote import open_files
from ...teacher_cache.store.access.store_files import LocalFiles
from ...teacher_cache.store.checking.partial_view import StoreView
from ...teacher_cache.store.filesystem.filesystem_errors import accessing
from ...teacher_cache.store.format.header import StoreHeader
from ...teacher_cache.store.format.keyed_hashes import given_key, require_key
from ...teacher_cache.store.store_problem import Problem, RowComparison
from ...teacher_cache.teachers.forward import Teacher
from ...teacher_cache.teachers.teacher_loading import load_teacher
from ..devices import pick_device
from ..extraction.image_sources import ImageRequest, check_image_request, listed_sources
from .verify import SHOWN, Verification, advice


@dataclass(frozen=True, kw_only=True, slots=True)
class Repair:
    """What was damaged, what was repaired, and what remains."""

    report: RepairReport

    def summary(self) -> dict[str, object]:
        report = self.report
        return {
            "store": str(report.store),
            "problems_found": len(report.found),
            "files_restored": len(report.restored),
            "shards_computed_again": len(report.shards),
            "rows_computed_again": sum(shard.rows for shard in report.shards),
            "rows_equal_to_what_was_committed": sum(shard.equal or 0 for shard in report.shards),
            "signature_removed": report.signature_removed,
            "problems_left": len(report.left),
            "root_sha256_before": report.root_before,
            "root_sha256": report.root_after,
            "found": [asdict(problem) for problem in report.found],
            "restored": list(report.restored),
            "shards": [asdict(shard) for shard in report.shards],
            "left": [asdict(problem) for problem in report.left],
        }

    def table(self) -> dict[str, object]:
        """The summary for people, with one line per problem; `raise_for_rest` lists those that are left."""
        values = {**self.summary(), "found": [str(problem) for problem in self.report.found]}
        return {name: value for name, value in values.items() if name != "left"}

    def raise_for_rest(self) -> None:
        """Raise StoreError if something is still damaged."""
        report = self.report
        lacking = [f"  shard {shard} needs {what}" for shard, what in list(report.lacking.items())[:SHOWN]]
        left = [f"  {problem}" for problem in report.left[:SHOWN]]
        if left:
            told = "\n".join([*left, *lacking, *advice(report.left, str(report.store))])
            raise StoreError(f"{report.store} is still damaged, {counted(len(report.left), 'problem')}:\n{told}")


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherRequest:
    """The teacher's weights and the images, if given."""

    weights: str | None
    images: ImageRequest
    device: str | None = None
    hash_key: Path | None = None


def check_teacher_request(request: TeacherRequest) -> None:
    """Check what can be checked before a store is read.

    Raises:
        SettingsError, InputError: The teacher or the images are missing, or an option is wrong.
    """
    _require_weights(request)
    pick_device(request.device)
    check_image_request(request.images)
    given_key(request.hash_key)


def sample_store(
    verification: Verification, rows: int, seed: int, teacher: TeacherRequest, progress: Progress
) -> Verification:
    """Recompute random rows of an undamaged store, and add differences to its problems.

    Raises:
        SettingsError, InputError: The teacher or the images are missing, or none of the images is in the store.
        StoreError: The weights or the key are not those of the store.
    """
    report = verification.report
    if report.problems:
        return verification
    view = StoreView(open_files(report.location))
    at_hand = teacher_at_hand(view.header, report.location, teacher, progress)
    found = at_hand.sampled(view.files, view.header, list(view.records.values()), rows, seed)
    wrong = tuple(_contradiction(view, row) for row in found if not row.within)
    return Verification(report=replace(report, problems=wrong), sample=tuple(found))


def repair_store(location: str, teacher: TeacherRequest, progress: Progress) -> Repair:
    """Repair a store; the teacher and images are needed only if shards must be recomputed.

    Raises:
        SettingsError, InputError: The teacher or the images are needed but missing.
        StoreError: See `repair`; or the weights or the key are not those of the store, or it cannot be written.
    """
    if not isinstance(open_files(location), LocalFiles):
        raise StoreError(f"{location} is remote: repair it on its machine, or a copy (`medalign store pull`)")
    at_hand, store = None, Path(location)
    if teacher.weights is not None:
        at_hand = teacher_at_hand(StoreView(LocalFiles(store)).header, str(store), teacher, progress)
    with accessing(store, "Restored files are kept."):
        return Repair(report=repair(store, at_hand, progress))


def teacher_at_hand(header: StoreHeader, location: str, request: TeacherRequest, progress: Progress) -> TeacherAtHand:
    """The store's teacher and images; both are loaded when first needed."""
    weights, device = _require_weights(request), pick_device(request.device)
    hash_key = given_key(request.hash_key)
    require_key(hash_key, header.hashing, location)
    return TeacherAtHand(
        load_teacher=lambda: _load(header, location, weights, device),
        load_sources=lambda: listed_sources(request.images, progress),
        hash_key=hash_key,
        progress=progress,
    )


def _require_weights(request: TeacherRequest) -> str:
    if request.weights is None:
        raise SettingsError("pass the teacher's weights (--weights) and the images (--manifest or --images)")
    return request.weights


def _load(header: StoreHeader, location: str, weights: str, device: str) -> Teacher:
    teacher = load_teacher(header.teacher, weights, device, header.dtype)
    if teacher.weights_sha256 != header.weights_sha256:
        raise StoreError(
            f"{weights} (SHA-256 {teacher.weights_sha256}) is not the weights of {location} ({header.weights_sha256})"
        )
    return teacher


def _contradiction(view: StoreView, row: RowComparison) -> Problem:
    array, profile = view.header.arrays()[0], view.records[row.shard].profile
    what = f"the teacher gives another result for this image: {row.verdict}"
    if not row.same_pixels:
        what += "; its file now decodes to different pixels than when the store was written"
    key = view.header.shard_key(profile, array, row.shard)
    return Problem(kind="content", key=key, shard=row.shard, rows=(row.row,), what=what)
