"""Reading a finished store by image hash. It needs neither zarr nor a teacher, and never makes up a missing row."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ....choices import Profile
from ....errors import InputError, StoreError
from ....path_checks import path_text
from ....plain_text import as_typed, counted, without_secrets
from ...images import UnreadableImage, as_stored, decode_image, image_hash, read_image_bytes
from ..access.remote import open_files
from ..access.store_files import StoreFiles
from ..file_names import INDEX_FILE
from ..format.header import PLAIN_HASHING, StoreHeader
from ..format.keyed_hashes import HashKey, read_key, require_key
from ..format.profiles import decode, has_patches, similarity
from ..records.index import HashColumn, hash_column, is_digest, read_columns, read_summary
from ..records.zarr_metadata import read_header
from ..store_errors import OTHER_IMAGES, DamagedStore, MissingTeacherRow
from .contents import StoreContents, read_contents
from .root_digest import index_root
from .rows import RowReader, StoredRow, damage, row_values


@dataclass(frozen=True, slots=True)
class TeacherTarget:
    """A teacher's targets for one image: float32, on the store's grid (N patches), row-major from the top left."""

    E_v: Float[Tensor, "patch channel"] | None
    """Patch features, `[N, b]`; None in a Gram store, which has only cosines."""
    S: Float[Tensor, "patch patch"] | None
    """Patch cosines (Eq. 3), `[N, N]`; None except in a Gram store."""
    E_a: Float[Tensor, "patch"]
    """Raw attention, `[N]`, not normalized."""


class TeacherTargets(NamedTuple):
    """A teacher's targets for K images, in the order in which they were requested."""

    E_v: Float[Tensor, "image patch channel"] | None
    """Patch features, `[K, N, b]`; None in a Gram store, which has only cosines."""
    S: Float[Tensor, "image patch patch"] | None
    """Patch cosines (Eq. 3), `[K, N, N]`; None except in a Gram store."""
    E_a: Float[Tensor, "image patch"]
    """Raw attention, `[K, N]`, not normalized."""


def open_store(location: str | Path, hash_key: HashKey | str | Path | None = None) -> "TeacherStore":
    """Open a finished teacher store for reading.

    Args:
        location: A folder, or a URL such as `s3://bucket/name.zarr`.
        hash_key: For a store with keyed image hashes, the key or the file that contains it.

    Raises:
        SettingsError: `location` or `hash_key` is not a path, or is empty.
        StoreError: There is no store, it is not a medalign store, its format is newer than this version of medalign,
            it is unfinished, its index is damaged, or it was created with another key.
        InputError: The key file cannot be read.

    Examples:
        >>> import medalign
        >>> store = medalign.open_store("medalign-demo/store.zarr")
        >>> target = store.for_image("medalign-demo/phantoms/images/00000.png")
        >>> target.E_v.shape, target.E_a.shape
        (torch.Size([64, 96]), torch.Size([64]))
    """
    if hash_key is not None and not isinstance(hash_key, HashKey):
        hash_key = read_key(Path(path_text("hash_key", hash_key, "a HashKey or the path of a key file")))
    store = TeacherStore(open_files(path_text("a store", location, "a path or URL")), hash_key)
    store.open()
    return store


if TYPE_CHECKING:
    _Rows = Mapping[str, TeacherTarget]
else:  # no type parameters, because run-time type checkers iterate over a Mapping[...] and would read rows
    _Rows = Mapping


class TeacherStore(_Rows):
    """A finished store: a mapping from image hashes to `TeacherTarget`, in row order.

    `len`, `in` and iteration read only the index. `store[image_hash]`, `values()` and `items()` read each row when it
    is needed. Two stores are equal only if they are the same object.

    A store keeps no file open, so it can be used after a fork and from several threads. An unpickled store opens on
    first use, so errors are raised when it is read, with their own message, and not while a worker starts. The object
    shows the store as it was when it was opened: images that `extend` adds later have no row in it, and all others
    keep theirs.

    Examples:
        >>> import medalign
        >>> store = medalign.open_store("medalign-demo/store.zarr")
        >>> store
        <TeacherStore 'medalign-demo/store.zarr': ... images, teacher phantom-tiny, ... E_v [64, 96], E_a [64]>
        >>> image_hash = next(iter(store))
        >>> image_hash in store
        True
        >>> store[image_hash].E_a.shape
        torch.Size([64])
        >>> store.read(list(store)[:3]).E_v.shape
        torch.Size([3, 64, 96])
    """

    def __init__(self, files: StoreFiles, hash_key: HashKey | None = None) -> None:
        self.files = files
        self._hash_key = hash_key

    def open(self) -> None:
        """Read the header and the index. Calling it is optional: reading rows opens the store too.

        Raises:
            StoreError: see `open_store`.
        """
        hashing = self.header.hashing  # reads header and index
        if self._hash_key is not None:  # without a key, a keyed store can be opened, but not searched by plain hashes
            require_key(self._hash_key, hashing, self.location)

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return TeacherStore, (self.files, self._hash_key)

    def __len__(self) -> int:
        """Number of images that have a row."""
        return len(self._contents.images)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the image hashes of the store; they are keyed hashes if the store is keyed."""
        images = self._contents.images
        return (images.hex(position) for position in range(len(images)))

    def __contains__(self, image_hash: object) -> bool:
        return isinstance(image_hash, str) and self.position(image_hash) is not None

    def __getitem__(self, image_hash: str) -> TeacherTarget:
        """Read the targets of one image.

        Raises:
            MissingTeacherRow: the image has no row.
            DamagedStore: the bytes of its row are missing or have changed.
        """
        return _first(self.read([image_hash]))

    def __eq__(
        self, other: object
    ) -> bool:  # a Mapping would compare all values, here tensors, which have no truth value
        return self is other

    def __hash__(self) -> int:
        return object.__hash__(self)

    def __repr__(self) -> str:
        name = f"<TeacherStore {without_secrets(self.location)!r}"
        if "_contents" not in self.__dict__:
            return f"{name}, not opened yet>"
        header = self.header
        patches = header.grid.patches
        rows = f"E_v [{patches}, {header.width}]" if has_patches(header.profile) else f"S [{patches}, {patches}]"
        return (
            f"{name}: {len(self)} images, teacher {header.teacher}, profile {header.profile}, {rows}, E_a [{patches}]>"
        )

    def for_image(self, path: str | Path) -> TeacherTarget:
        """Read the targets of an image file.

        The file is looked up by the SHA-256 of its bytes, and then by that of its decoded pixels, so renamed and
        losslessly re-saved files are found too.

        Raises:
            InputError: the file cannot be read.
            MissingTeacherRow: it has no row; the message gives the hashes that were looked up.
            DamagedStore: the bytes of its row are missing or have changed.
            StoreError: the store's hashes are keyed and it was opened without the key.
        """
        path = path_text("an image", path)
        try:
            data = read_image_bytes(as_stored(Path(path)))
        except UnreadableImage as error:
            raise InputError(f"cannot read {path}: {error}") from error
        digest, pixels = image_hash(data), None
        position = self.position(digest)
        if position is None:
            pixels = _pixel_hash(data)
            position = self.position(digest, pixels)
        if position is None:
            pixels = "cannot be decoded" if pixels is None else f"have {pixels[:12]}"
            missing = self.missing_error([digest], 1)
            raise MissingTeacherRow(f"{path}: its bytes have SHA-256 {digest[:12]}, its pixels {pixels}: {missing}")
        return _first(self._read([position]))

    @cached_property
    def _contents(self) -> StoreContents:
        return read_contents(self.files)

    @cached_property
    def _reader(self) -> RowReader:
        return RowReader(self.files, self.header, self._contents.shards)

    @property
    def header(self) -> StoreHeader:
        return self._contents.header

    @property
    def root_sha256(self) -> str:
        """The root digest as the index states it; `verify` recomputes it from all content."""
        return self._contents.root_sha256

    @property
    def failures(self) -> dict[str, str]:
        """Image hash -> why this image has no row."""
        return self._contents.failures

    @property
    def unreadable(self) -> tuple[str, ...]:
        """Reasons why other files could not be hashed."""
        return self._contents.unreadable

    @property
    def location(self) -> str:
        """Path or URL."""
        return self.files.location

    @property
    def fingerprint(self) -> str:
        return self.header.fingerprint

    def recomputed_root(self) -> str:
        """Compute the root digest from header, index and failures; no row is read, only the row digests are used.

        Raises:
            DamagedStore: the index cannot be read.
        """
        return index_root(self.files, self._contents)

    def missing(self, image_hashes: Iterable[str], pixel_hashes: Iterable[str | None] | None = None) -> list[str]:
        """The images that have no row, in the given order.

        Raises:
            InputError: `image_hashes` is one string, or there is not one pixel hash for each.
        """
        pairs = _pairs(image_hashes, pixel_hashes)
        return [image for image, pixel in pairs if self.position(image, pixel) is None]

    def row(self, image_hash: str, pixel_hash: str | None = None) -> int:
        """The row of an image, looked up by the hash of its file, then by the hash of its pixels.

        Raises:
            MissingTeacherRow: neither hash has a row.
        """
        position = self.position(image_hash, pixel_hash)
        if position is None:
            raise self.missing_error([image_hash], 1)
        row: int = self._contents.rows[position]
        return row

    def position(self, image_hash: str, pixel_hash: str | None = None) -> int | None:
        """The position of an image in the index, or `None`. Hashes are plain SHA-256, or keyed if the store is keyed.

        Raises:
            StoreError: the store's hashes are keyed and it was opened without the key.
        """
        position = None
        if is_digest(image_hash):  # no other key has a row
            position = self._contents.images.find(image_hash)  # plain, or keyed as iteration returns it
            if position is None and self._contents.header.hashing != PLAIN_HASHING:
                position = self._contents.images.find(self._name(image_hash))
        if position is None and pixel_hash is not None:
            position = self._pixels.find(self._name(pixel_hash))
        return position

    def read(self, image_hashes: Iterable[str], pixel_hashes: Iterable[str | None] | None = None) -> TeacherTargets:
        """Read the targets of several images, in the given order; a hash may occur more than once.

        Raises:
            MissingTeacherRow: some images have no row; the message gives their number and the first one.
            InputError: `image_hashes` is one string, or there is not one pixel hash for each.
            DamagedStore: bytes are missing or have changed.
        """
        positions, missing = [], []
        pairs = _pairs(image_hashes, pixel_hashes)
        for image, pixel in pairs:
            position = self.position(image, pixel)
            if position is None:
                missing.append(image)
            else:
                positions.append(position)
        if missing:
            raise self.missing_error(missing, len(pairs))
        return self._read(positions)

    def _read(self, positions: Sequence[int]) -> TeacherTargets:
        """Read the targets of rows, given by their positions in the index."""
        header = self._contents.header
        decoded = [self._decode(row) for row in self.stored_rows(positions)]
        if len(decoded) == 1:
            return decoded[0]
        patches = header.grid.patches
        E_a = _joined([rows.E_a for rows in decoded], patches)
        if has_patches(header.profile):
            return TeacherTargets(_joined([rows.E_v for rows in decoded], patches, header.width), None, E_a)
        return TeacherTargets(None, _joined([rows.S for rows in decoded], patches, patches), E_a)

    def failure(self, image_hash: str) -> tuple[str, str] | None:
        """The store's hash of an image that failed during extraction, and the reason; `None` if it did not fail."""
        name = self._name(image_hash)
        return (name, self.failures[name]) if name in self.failures else None

    def profile_of(self, position: int) -> Profile:
        """The profile of the shard that contains a row."""
        return self._contents.shards[self._contents.rows[position] // self.header.shard_rows].profile

    def stored_rows(self, positions: Sequence[int]) -> list[StoredRow]:
        """Read rows in their stored form, given by their positions in the index; verifies every checksum.

        Raises:
            DamagedStore: bytes are missing, have changed, or belong to another row.
        """
        rows, checksums = self._contents.rows, self._contents.checksums
        return self._reader.read(
            [rows[position] for position in positions], [checksums[position] for position in positions]
        )

    def missing_error(self, missing: Sequence[str], total: int) -> MissingTeacherRow:
        """The error for images without a row; it gives the recorded reason if the first one failed."""
        first = missing[0]
        if not is_digest(first):
            raise MissingTeacherRow(
                f"{first!r} is not the SHA-256 of an image file (64 lowercase hexadecimal digits), by which "
                f"{self.location} names its rows. To look up an image file, use `store.for_image(path)`"
            )
        add = f"`medalign store extend {as_typed(self.location)} --weights FILE --manifest MANIFEST`"
        subject = (
            f"{len(missing)} of {total} images have no row in {self.location} (teacher {self.header.teacher}, "
            f"{counted(len(self), 'row')})"
        )
        if self._has_changed():
            return MissingTeacherRow(
                f"{subject}; first: {first[:12]}. The store was changed after it was opened: open it again"
            )
        if failure := self.failure(first):
            return MissingTeacherRow(
                f"{subject}; first: {first[:12]}, which failed during extraction: {failure[1]}. Replace that file, "
                f"import the data set again and add it with {add}, or remove the image from the manifest"
            )
        return MissingTeacherRow(
            f"{subject}; first: {first[:12]}. Add them with {add}, or leave them out of the manifest; {OTHER_IMAGES}"
        )

    def _has_changed(self) -> bool:
        """Whether the header or index has changed since the store was opened; False if they cannot be read."""
        try:
            return read_header(self.files) != self.header or read_summary(self.files).root_sha256 != self.root_sha256
        except StoreError:
            return False

    def index_columns(self, names: Sequence[str]) -> Any:
        """Columns of index.parquet as an Arrow table, ordered by position."""
        return read_columns(self.files, INDEX_FILE, names, self.header)

    def _name(self, digest: str) -> str:
        """The hash by which the store identifies an image with this plain hash."""
        if self._contents.header.hashing == PLAIN_HASHING:
            return digest
        if self._hash_key is None:
            raise StoreError(
                f"the image hashes of {self.location} are keyed ({self.header.hashing}): pass the key of its authors "
                "(--hash-key FILE, or data.hash_key in a training configuration)"
            )
        return self._hash_key.keyed(digest)

    @cached_property
    def _pixels(self) -> HashColumn:
        return hash_column(self.files, "pixel_hash", self.header)

    def _decode(self, stored: StoredRow) -> TeacherTargets:
        """Decode one row; the first dimension is a batch of 1."""
        header = self._contents.header
        try:
            rows = decode(stored.profile, row_values(stored), header.native_grid, header.grid)
        except DamagedStore as error:
            raise damage(self.location, str(error)) from error
        if has_patches(header.profile):
            return TeacherTargets(rows.E_v, None, rows.E_a)
        return TeacherTargets(None, similarity(rows), rows.E_a)  # a row in a wider profile has patches


def _first(targets: TeacherTargets) -> TeacherTarget:
    """The targets of the first image of a batch."""
    E_v = None if targets.E_v is None else targets.E_v[0]
    return TeacherTarget(E_v=E_v, S=None if targets.S is None else targets.S[0], E_a=targets.E_a[0])


def _pixel_hash(data: bytes) -> str | None:
    """The pixel hash of an image file's bytes; `None` if they cannot be decoded."""
    try:
        return decode_image(data).pixel_hash
    except UnreadableImage:
        return None


def _joined(rows: Sequence[Tensor | None], *shape: int) -> Tensor:
    """Concatenate batches of one row; `shape` is that of a row and gives the shape of an empty batch."""
    return torch.cat([row for row in rows if row is not None]) if rows else torch.empty(0, *shape)


def _pairs(image_hashes: Iterable[str], pixel_hashes: Iterable[str | None] | None) -> list[tuple[str, str | None]]:
    if isinstance(image_hashes, str):
        raise InputError("pass a list of image hashes, not one string; `store[image_hash]` reads one row")
    images = list(image_hashes)
    pixels = [None] * len(images) if pixel_hashes is None else list(pixel_hashes)
    if len(pixels) != len(images):
        raise InputError(f"{len(pixels)} pixel hashes for {len(images)} images: pass one for each, or None")
    return list(zip(images, pixels, strict=True))
