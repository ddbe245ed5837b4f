"""Everything that a run of stage one can be given beside its teacher, its images and its store."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Final

from ..geometry.patch_grid import PatchGrid
from ..geometry.square import Geometry, JpegScale
from ..store.format.header import DataUse
from ..store.format.keyed_hashes import HashKey, hashing_of
from ..store.format.profiles import Profile
from ..workers.engines import Crew
from ..workers.task import Task


@dataclass(frozen=True, kw_only=True)
class StoreOptions:
    """How rows are made and stored. `None`: the default of a new store, or what an old one was begun with."""

    geometry: Geometry = "pad"
    """Square that the teacher sees: `pad`, as the student does, or `crop`, as the released code does."""
    jpeg_scale: JpegScale | None = None
    """`reduced` decodes large JPEGs whose pixel hash is known at a reduced size, which is faster and changes the rows;
    the header records it. Default: `full`."""
    profile: Profile | None = None
    """How rows become bytes (docs/stores.md); default: `float16`."""
    tolerance: float | None = None
    """Largest max |dS| of a row, above 0; a shard with a larger one is stored in a wider profile. Default: no limit."""
    batch_size: int | None = None
    """Images in one forward pass, on which bits depend. Default: 16, 64 on a GPU."""
    threads: int | None = None
    """CPU threads of each worker, on which bits depend where a CPU computes. Default: the cores, divided by the workers
    of the first run."""
    shard_rows: int | None = None
    """Images in one shard; default: by the number of images."""
    title: str | None = None
    """Title of the store, for its card."""
    licence: str | None = None
    """License of the store, for its card."""


@dataclass(frozen=True, kw_only=True)
class ExtractionOptions(StoreOptions):
    """What `extract` can be given."""

    grid: PatchGrid
    """The student's patch grid, on which rows are read."""
    data_use: DataUse = "private"
    """Class of the images; the strictest, where there are several."""
    hash_key: HashKey | None = None
    """Key of the hashes by which the store knows images; `None`: plain hashes."""
    unreadable: Sequence[str] = ()
    """Why further files have no hash; recorded in the store."""
    resume: bool = False
    """Continue an earlier run, and keep its committed shards."""
    task: Task | None = None
    """The part of the shards to compute, of a store that the first of the tasks creates and `finish` closes; `None`:
    all of them."""
    crew: Crew = field(default_factory=Crew)
    """Who computes; bits do not depend on it."""

    @property
    def hashing(self) -> str:
        """What the header records of the key."""
        return hashing_of(self.hash_key)


RECORDED: Final = (*(option.name for option in fields(StoreOptions)), "grid", "data_use", "hashing")
"""Options that a store's header has."""
