"""The options of a stage-one run, in addition to its teacher, images and store."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Final

from ...choices import DataUse, Geometry, JpegScale, Profile
from ..geometry.patch_grid import PatchGrid
from ..store.format.keyed_hashes import HashKey, hashing_of
from ..workers.engines import Crew
from ..workers.task import Task


@dataclass(frozen=True, kw_only=True)
class StoreOptions:
    """How rows are computed and stored. `None`: the default for a new store, or the setting of an existing one."""

    geometry: Geometry = "pad"
    """How an image becomes the teacher's square input: `pad`, like the student, or `crop`, like the released code."""
    jpeg_scale: JpegScale | None = None
    """`reduced` decodes large JPEGs with a known pixel hash at a reduced size, which is faster and changes the rows;
    the header records it. Default: `full`."""
    profile: Profile | None = None
    """How rows are stored (docs/stores.md); default: `float16`."""
    tolerance: float | None = None
    """Largest allowed max |dS| of a row, above 0; a shard that exceeds it gets a wider profile. Default: no limit."""
    batch_size: int | None = None
    """Images per forward pass; it affects the last bits of rows. Default: 16, or 64 on a GPU."""
    threads: int | None = None
    """CPU threads per worker; on a CPU they affect the last bits of rows. Default: number of cores divided by the
    workers of the first run."""
    shard_rows: int | None = None
    """Images per shard; default: depends on the number of images."""
    title: str | None = None
    """Title of the store, for its card."""
    license: str | None = None
    """License of the store, for its card."""


@dataclass(frozen=True, kw_only=True)
class ExtractionOptions(StoreOptions):
    """The options of `extract`."""

    grid: PatchGrid
    """The student's patch grid, to which rows are interpolated."""
    data_use: DataUse = "private"
    """Data-use class of the images; the strictest one if there are several."""
    hash_key: HashKey | None = None
    """Key for the image hashes in the store; `None`: plain hashes."""
    unreadable: Sequence[str] = ()
    """Reasons why other files have no hash; recorded in the store."""
    resume: bool = False
    """Continue an earlier run and keep its committed shards."""
    task: Task | None = None
    """The part of the shards to compute; `None`: all of them. The first task to start creates the store, and `finish`
    finishes it."""
    crew: Crew = field(default_factory=Crew)
    """The workers; they do not affect the bits of rows."""

    @property
    def hashing(self) -> str:
        """The header's `hashing` field for the key."""
        return hashing_of(self.hash_key)


RECORDED: Final = (*(option.name for option in fields(StoreOptions)), "grid", "data_use", "hashing")
"""Options that a store's header records."""
