"""What a run of stage one did."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...progress import Progress
from ..store.access.store_files import LocalFiles
from ..store.file_names import FAILURES_FILE
from ..store.format.profiles import Profile
from ..store.reading.root_digest import final_failures
from ..store.records.index import read_columns, read_summary
from ..store.records.ledger import read_record
from ..store.records.zarr_metadata import read_header
from ..workers.messages import Clocks, Committed, Event
from ..workers.prefetch import FailedImage


@dataclass(frozen=True, kw_only=True, slots=True)
class ExtractionReport:
    """What a run did."""

    out: Path
    images: int
    """Distinct images of the shards that were this run's to write."""
    failures: tuple[FailedImage, ...]
    """All of them without a row, those of earlier runs included."""
    unreadable: tuple[str, ...]
    """Why files could not even be hashed; one reason for each."""
    narrow_images: int
    """Images that this run computed and that use under an eighth of the range of their pixels."""
    shards_done: int
    shards_reused: int
    """Committed by an earlier run."""
    shards_redone: int
    """Of `shards_done`: an earlier run had begun them."""
    profiles: dict[Profile, int]
    """Shards in each profile; more than one where rows missed the tolerance."""
    workers: int
    images_done: int
    """Images that this run computed or failed."""
    seconds: float
    decode_share: float
    """Share of the workers' time that they waited for decoded images."""
    forward_share: float
    """Share of their time in the teacher."""
    write_share: float
    """Share of their time that they waited for encoding and writing, which go on beside the teacher."""
    bytes: int
    """Of all files of the store."""
    root_sha256: str | None
    """`None` while the store is unfinished."""

    @property
    def images_per_second(self) -> float:
        return self.images_done / self.seconds if self.seconds > 0 else 0.0


class Tally:
    """Counts what workers tell, and passes it on to whoever watches."""

    def __init__(self, progress: Progress) -> None:
        self.shards_done = 0
        self.narrow_images = 0
        self._progress = progress

    def tell(self, event: Event) -> None:
        if isinstance(event, Committed):
            self.shards_done += 1
            self.narrow_images += event.narrow
            for failure in event.failures:
                self._progress.note(f"image {failure.image_hash[:12]} failed: {failure.reason}")
        else:
            self._progress.advance(event.images)


def shares(clocks: Sequence[Clocks]) -> dict[str, float]:
    """The three shares of a report."""
    total = sum(clock.total for clock in clocks) or 1.0
    return {
        "decode_share": sum(clock.read for clock in clocks) / total,
        "forward_share": sum(clock.forward for clock in clocks) / total,
        "write_share": sum(clock.write for clock in clocks) / total,
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What a store, or a task's part of it, holds in the end."""

    failures: tuple[FailedImage, ...]
    unreadable: tuple[str, ...]
    profiles: dict[Profile, int]
    bytes: int


def finished_outcome(store: Path) -> Outcome:
    """Of a finished store, from its small files."""
    files = LocalFiles(store)
    rows = read_columns(files, FAILURES_FILE, ["image_hash", "reason"], read_header(store)).to_pylist()
    return Outcome(
        failures=tuple(FailedImage(**row) for row in rows if row["image_hash"] is not None),
        unreadable=tuple(row["reason"] for row in rows if row["image_hash"] is None),
        profiles=dict(Counter(entry.profile for entry in read_summary(files).shards)),
        bytes=_folder_bytes(store),
    )


def task_outcome(store: Path, shards: Sequence[int]) -> Outcome:
    """Of some committed shards of an unfinished store, from the ledger."""
    records = [read_record(store, shard) for shard in shards]
    return Outcome(
        failures=tuple(FailedImage(failure.image_hash, failure.reason) for failure in final_failures(records)),
        unreadable=(),
        profiles=dict(Counter(record.profile for record in records)),
        bytes=_folder_bytes(store),
    )


def _folder_bytes(store: Path) -> int:
    return sum(file.stat().st_size for file in store.rglob("*") if file.is_file())
