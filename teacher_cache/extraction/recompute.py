"""The teacher and images for recomputing damaged shards, loaded on first use."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

from ...errors import StoreError
from ...progress import Progress
from ..store.access.store_files import StoreFiles
from ..store.format.header import StoreHeader
from ..store.format.keyed_hashes import HashKey, naming
from ..store.records.ledger import ShardRecord
from ..store.store_problem import RowComparison
from ..store.writing.writer import StoreWriter
from ..teachers.forward import Teacher
from ..workers.engines import Crew
from ..workers.messages import ShardJob
from ..workers.prefetch import ImageSource
from .report import Tally
from .row_check import compare_rows, draw_rows

_ROWS_CHECKED = 4


@runtime_checkable
class Recomputing(Protocol):
    """Recomputes shards from a teacher and images; not needed if a store can be restored from its own files."""

    def sources(self) -> Sequence[ImageSource]:
        """The given images."""

    def name(self, image_hash: str) -> str:
        """The store's hash of the image with this plain hash."""

    def check(self, files: StoreFiles, header: StoreHeader, records: Sequence[ShardRecord]) -> None:
        """Raise StoreError if the teacher does not reproduce rows of intact shards."""

    def compute(self, writer: StoreWriter, jobs: Sequence[ShardJob]) -> None:
        """Compute and commit shards."""


@dataclass(frozen=True, kw_only=True)
class TeacherAtHand:
    """The teacher of a store and images, both loaded on first use."""

    load_teacher: Callable[[], Teacher]
    load_sources: Callable[[], Sequence[ImageSource]]
    hash_key: HashKey | None
    progress: Progress

    @cached_property
    def _teacher(self) -> Teacher:
        return self.load_teacher()

    @cached_property
    def _sources(self) -> Sequence[ImageSource]:
        return self.load_sources()

    def sources(self) -> Sequence[ImageSource]:
        return self._sources

    def name(self, image_hash: str) -> str:
        return naming(self.hash_key)(image_hash)

    def check(self, files: StoreFiles, header: StoreHeader, records: Sequence[ShardRecord]) -> None:
        """Recompute a few intact rows, so that no rows of another teacher are written."""
        available = {self.name(source.image_hash) for source in self._sources}
        if not any(image.image_hash in available for record in records for image in record.images):
            self.progress.note("the teacher was not checked: no intact row has an image among the given ones")
            return
        compared = self.sampled(files, header, records, _ROWS_CHECKED, seed=0)
        wrong = [row for row in compared if not row.within]
        if wrong:
            raise StoreError(
                f"{files.location}: this teacher does not reproduce {len(wrong)} of {len(compared)} intact rows from "
                f"their images (row {wrong[0].row}: {wrong[0].verdict}), so it would not write the committed values. "
                "No shard was changed"
            )

    def sampled(
        self, files: StoreFiles, header: StoreHeader, records: Sequence[ShardRecord], rows: int, seed: int
    ) -> list[RowComparison]:
        """Recompute random rows and compare them with the stored ones.

        Raises:
            InputError: none of the images has a row, or one can no longer be read.
        """
        by_name = {self.name(source.image_hash): source for source in self._sources}
        drawn = draw_rows(records, list(by_name), rows, seed)
        return compare_rows(self._teacher, files, header, records, drawn, by_name, self.name, self.progress)

    def compute(self, writer: StoreWriter, jobs: Sequence[ShardJob]) -> None:
        self.progress.start("recomputing damaged shards", sum(len(job.images) for job in jobs))
        tell = Tally(self.progress).tell
        Crew().run(self._teacher, self._teacher, writer, jobs, self.hash_key, tell, self.progress)
