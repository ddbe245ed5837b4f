"""Teacher and images for shards that are damaged, got only once they are needed."""

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
    """Teacher and images, none of which is needed where a store can restore itself."""

    def sources(self) -> Sequence[ImageSource]:
        """The images at hand."""

    def name(self, image_hash: str) -> str:
        """What the store calls an image."""

    def check(self, files: StoreFiles, header: StoreHeader, records: Sequence[ShardRecord]) -> None:
        """Raise StoreError where the teacher does not reproduce rows of shards that are sound."""

    def compute(self, writer: StoreWriter, jobs: Sequence[ShardJob]) -> None:
        """Compute and commit shards."""


@dataclass(frozen=True, kw_only=True)
class TeacherAtHand:
    """The teacher of the store, loaded when it is needed first, and images."""

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
        """Compute a few sound rows again, so that no other teacher's rows come between them."""
        named = {self.name(source.image_hash) for source in self._sources}
        if not any(image.image_hash in named for record in records for image in record.images):
            self.progress.note("no sound row is left whose image is given, to check the teacher with")
            return
        found = self.sampled(files, header, records, _ROWS_CHECKED, seed=0)
        wrong = [row for row in found if not row.within]
        if wrong:
            raise StoreError(
                f"{files.location}: {len(wrong)} of {len(found)} sound rows are not what this teacher says of their "
                f"images here (row {wrong[0].row}: {wrong[0].verdict}), so what it would write is not what was "
                "committed. No shard was changed"
            )

    def sampled(
        self, files: StoreFiles, header: StoreHeader, records: Sequence[ShardRecord], rows: int, seed: int
    ) -> list[RowComparison]:
        """Compute random rows again.

        Raises:
            InputError: none of the images has a row, or one cannot be read any more.
        """
        by_name = {self.name(source.image_hash): source for source in self._sources}
        drawn = draw_rows(records, list(by_name), rows, seed)
        return compare_rows(self._teacher, files, header, records, drawn, by_name, self.name, self.progress)

    def compute(self, writer: StoreWriter, jobs: Sequence[ShardJob]) -> None:
        self.progress.start("computing damaged shards again", sum(len(job.images) for job in jobs))
        tell = Tally(self.progress).tell
        Crew().run(self._teacher, self._teacher, writer, jobs, self.hash_key, tell, self.progress)
