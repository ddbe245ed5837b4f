"""The report of a stage-one run."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...choices import Profile
from ...progress import Progress
from ..store.access.store_files import LocalFiles
from ..store.file_names import FAILURES_FILE
from ..store.reading.root_digest import final_failures
from ..store.records.index import read_columns, read_summary
from ..store.records.ledger import read_record
from ..store.records.zarr_metadata import read_header
from ..workers.messages import Clocks, Committed, Event
from ..workers.prefetch import FailedImage


@dataclass(frozen=True, kw_only=True, slots=True)
class ExtractionReport:
    """Result of a stage-one run."""

    out: Path
    grid: str
    """The patch grid of the store's rows, such as `24x24`."""
    images: int
    """Distinct images in the shards assigned to this run."""
    failures: tuple[FailedImage, ...]
    """All images without a row, including those of earlier runs."""
    unreadable: tuple[str, ...]
    """One reason for each file that could not be hashed."""
    narrow_images: int
    """Images computed by this run that use less than an eighth of their pixels' range."""
    shards_done: int
    shards_reused: int
    """Committed by an earlier run."""
    shards_redone: int
    """Shards among `shards_done` that an earlier run had started."""
    profiles: dict[Profile, int]
    """Number of shards per profile; there are several profiles if rows exceeded the tolerance."""
    workers: int
    images_done: int
    """Images that this run processed, including failed ones."""
    seconds: float
    decode_share: float
    """Share of the workers' time spent waiting for decoded images."""
    forward_share: float
    """Share of the workers' time spent in the teacher."""
    write_share: float
    """Share of the workers' time spent waiting for encoding and writing, which overlap with the teacher."""
    bytes: int
    """Size of all files of the store."""
    root_sha256: str | None
    """`None` while the store is unfinished."""

    @property
    def images_per_second(self) -> float:
        return self.images_done / self.seconds if self.seconds > 0 else 0.0


class Tally:
    """Counts the events of workers and reports progress."""

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
    """The three time shares of a report."""
    total = sum(clock.total for clock in clocks) or 1.0
    return {
        "decode_share": sum(clock.read for clock in clocks) / total,
        "forward_share": sum(clock.forward for clock in clocks) / total,
        "write_share": sum(clock.write for clock in clocks) / total,
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """Content of a store, or of a task's part of it, after a run."""

    failures: tuple[FailedImage, ...]
    unreadable: tuple[str, ...]
    profiles: dict[Profile, int]
    bytes: int


def finished_outcome(store: Path) -> Outcome:
    """The outcome for a finished store, from its small files."""
    files = LocalFiles(store)
    rows = read_columns(files, FAILURES_FILE, ["image_hash", "reason"], read_header(store)).to_pylist()
    return Outcome(
        failures=tuple(FailedImage(**row) for row in rows if row["image_hash"] is not None),
        unreadable=tuple(row["reason"] for row in rows if row["image_hash"] is None),
        profiles=dict(Counter(entry.profile for entry in read_summary(files).shards)),
        bytes=_folder_bytes(store),
    )


def task_outcome(store: Path, shards: Sequence[int]) -> Outcome:
    """The outcome for committed shards of an unfinished store, from the ledger."""
    records = [read_record(store, shard) for shard in shards]
    return Outcome(
        failures=tuple(FailedImage(failure.image_hash, failure.reason) for failure in final_failures(records)),
        unreadable=(),
        profiles=dict(Counter(record.profile for record in records)),
        bytes=_folder_bytes(store),
    )


def _folder_bytes(store: Path) -> int:
    return sum(file.stat().st_size for file in store.rglob("*") if file.is_file())
