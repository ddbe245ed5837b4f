"""The images of a store's rows, found by their hashes in a folder or a manifest."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from PIL import Image

from ....errors import InputError
from ....path_checks import is_absent
from ....plain_text import as_typed, counted
from ....progress import Progress
from ....teacher_cache.images import UnreadableImage, read_expected_image
from ....teacher_cache.store import HashKey, TeacherStore
from ....teacher_cache.store.format.keyed_hashes import naming
from ....teacher_cache.store.store_errors import OTHER_IMAGES
from ....teacher_cache.workers.prefetch import ImageSource
from ...extraction.image_sources import ImageRequest, listed_sources
from .row_flaws import Flaw
from .row_sample import index_values

_SHOWN: Final = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class GivenImages:
    """The images that the user has, and which rows of the store are theirs."""

    sources: Mapping[int, ImageSource]
    """Position in the index -> its image."""
    given: int
    """Number of different images."""
    missing: int
    """Number of images that have a row, but whose file does not exist."""

    @property
    def without_row(self) -> int:
        return self.given - len(self.sources) - self.missing


class PreviewImages:
    """Reads the images of rows; remembers which ones cannot be read and where the index describes another image."""

    def __init__(self, store: TeacherStore, given: GivenImages, key: HashKey | None) -> None:
        self._given, self._name = given, naming(key)
        self._columns = index_values(store, ["row", "pixel_hash", "width", "height"])
        self.unreadable: dict[int, str] = {}
        """Position -> why its image cannot be read."""
        self.contradictions: dict[int, Flaw] = {}
        """Position -> how the index differs from the image with its hash."""

    @property
    def positions(self) -> list[int]:
        """Rows whose image is among the given ones."""
        return list(self._given.sources)

    def has_readable(self, position: int) -> bool:
        """Whether a row's image is among the given ones, and no attempt to read it has failed."""
        return position in self._given.sources and position not in self.unreadable

    def read(self, position: int) -> Image.Image | None:
        """The upright image of a row; None if it is not among the given ones or cannot be read."""
        source = self._given.sources.get(position)
        if source is None:
            return None
        try:
            decoded = read_expected_image(source.path, source.image_hash, source.pixel_hash)
        except UnreadableImage as error:
            self.unreadable[position] = error.reason
            return None
        size = tuple(int(self._columns[name][position]) for name in ("width", "height"))
        if size != (decoded.width, decoded.height):
            told, true = f"{size[0]}x{size[1]}", f"{decoded.width}x{decoded.height}"
            self.contradictions[position] = Flaw("index", f"the index says {told} pixels, its image has {true}")
        elif self._columns["pixel_hash"][position] != self._name(decoded.pixel_hash):
            self.contradictions[position] = Flaw("index", "the index has a different pixel hash from its image")
        return decoded.shown

    def notes(self) -> list[str]:
        """Sentences about images that could not be used."""
        notes = []
        if self.unreadable:
            rows = [f"row {self._columns['row'][at]}: {reason}" for at, reason in sorted(self.unreadable.items())]
            more = f"; and {len(rows) - _SHOWN:,} more" if len(rows) > _SHOWN else ""
            subject = counted(len(rows), "row was", "rows were")
            notes.append(f"{subject} not compared with images that cannot be read: {'; '.join(rows[:_SHOWN])}{more}")
        if self._given.missing:
            subject = counted(self._given.missing, "image is", "images are")
            notes.append(f"{subject} missing, although the manifest lists them; pass --root if they were moved")
        if self._given.without_row:
            subject = counted(self._given.without_row, "given image has", "given images have")
            notes.append(f"{subject} no row in the store")
        return notes


def find_images(store: TeacherStore, request: ImageRequest, progress: Progress) -> GivenImages:
    """Find the rows of given images, by the hash of their files, then by the hash of their pixels.

    Raises:
        SettingsError, InputError: The images cannot be listed, or none of them has a row.
        StoreError: The hashes of the store are keyed and it was opened without the key.
    """
    sources = listed_sources(request, progress)
    found: dict[int, ImageSource] = {}
    for source in sources:
        position = store.position(source.image_hash, source.pixel_hash)
        if position is not None:
            found.setdefault(position, source)
    if not found:
        given = request.manifest if request.images is None else request.images
        raise InputError(
            f"none of the {counted(len(sources), 'image')} in {given} has a row in {store.location} "
            f"({counted(len(store), 'row')}): {OTHER_IMAGES}. Pass the "
            f"images that the store was made from; `medalign store info {as_typed(store.location)}` shows its title"
        )
    present = {position: source for position, source in found.items() if not is_absent(source.path)}
    if not present:
        first = next(iter(found.values())).path
        raise InputError(
            f"all {counted(len(found), 'image')} of {request.manifest} with a row in {store.location} are missing; "
            f"first: {first}. If the files were moved, pass their new root with --root"
        )
    return GivenImages(sources=present, given=len(sources), missing=len(found) - len(present))
