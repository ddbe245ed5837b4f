"""Reading a finished store by image hash. Needs neither zarr nor a teacher, and never returns a made-up
row."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from ...errors import StoreError
from .access import LocalFiles, StoreFiles, open_files
from .format import FAILURES_FILE, INDEX_FILE, MANIFEST_FILE, PLAIN_HASHING, StoreHeader
from .index import HashColumn, hash_column, read_columns, read_summary
from .keyed import HashKey
from .ledger import committed_shards
from .metadata import check_arrays, read_header
from .problems import DamagedStore, MissingTeacherRow, UnfinishedStore
from .profiles import DecodedRows, Profile, decode, has_patches, similarity
from .rows import RowReader, StoredRow, damage, row_values


@dataclass(frozen=True, slots=True)
class TeacherTarget:
    """What the teacher said about one image, float32, on the store's grid, row-major from the top left."""

    E_v: Float[Tensor, "patch channel"] | None
    """Patch features; None in a Gram store, which does not hold them."""
    S: Float[Tensor, "patch patch"] | None
    """Patch cosines (Eq. 3); given only in a Gram store."""
    E_a: Float[Tensor, "patch"]
    """Raw attention: not normalised."""


@dataclass(frozen=True, slots=True)
class TeacherTargets:
    """The same for several images, in the order that was asked for."""

    E_v: Float[Tensor, "image patch channel"] | None
    S: Float[Tensor, "image patch patch"] | None
    E_a: Float[Tensor, "image patch"]


def open_store(location: str | Path, hash_key: HashKey | None = None) -> "TeacherStore":
    """Open a finished store for reading, at a path or a URL; `hash_key` is for one with keyed hashes.

    Raises:
        StoreError: no store, a foreign or newer one, an unfinished one, one whose index is damaged, or one with
            another key.
    """
    return TeacherStore(open_files(location), hash_key)


class TeacherStore:
    """A finished store. Pickles as its location; holds no open file, so it survives fork, spawn and threads."""

    def __init__(self, files: StoreFiles, hash_key: HashKey | None = None) -> None:
        self.files = files
        self.header = read_header(files)
        self._hash_key = _fitting(hash_key, self.header, files.location)
        if not files.exists(MANIFEST_FILE):
            raise UnfinishedStore(_unfinished(files, self.header))
        summary = read_summary(files)
        if summary.fingerprint != self.header.fingerprint or summary.root_sha256 is None:
            raise DamagedStore(f"{INDEX_FILE} of {files.location} belongs to another store than its zarr.json")
        self.root_sha256: str = summary.root_sha256
        if len(summary.shards) != self.header.shards:
            raise DamagedStore(
                f"{INDEX_FILE} of {files.location} tells of {len(summary.shards)} shards, the header of "
                f"{self.header.shards}"
            )
        check_arrays(files, self.header, tuple({shard.profile: None for shard in summary.shards}))
        self.failures, self.unreadable = _failures(files)
        """Image hash -> why this image has no row; and reasons of files that could not even be hashed."""
        self._images = hash_column(files, "image_hash")
        columns = read_columns(files, INDEX_FILE, ["row", "crc32c"])
        self._rows: NDArray[np.int64] = columns.column("row").to_numpy()
        self._checksums: NDArray[np.uint32] = columns.column("crc32c").to_numpy()
        if len(self._images) + len(self.failures) > self.header.planned:
            raise DamagedStore(
                f"{files.location} should have {self.header.planned} images, but its index has {len(self._images)} "
                f"and its failures {len(self.failures)}"
            )
        self._shards = summary.shards
        self._reader = RowReader(files, self.header, summary.shards)

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return TeacherStore, (self.files, self._hash_key)

    def __len__(self) -> int:
        """Number of images that have a row."""
        return len(self._images)

    def __contains__(self, image_hash: object) -> bool:
        return isinstance(image_hash, str) and self.position(image_hash) is not None

    def __getitem__(self, image_hash: str) -> TeacherTarget:
        """Read one image's targets.

        Raises:
            MissingTeacherRow: it has no row.
            DamagedStore: its bytes are gone or have changed.
        """
        targets = self.read([image_hash])
        E_v = None if targets.E_v is None else targets.E_v[0]
        return TeacherTarget(E_v=E_v, S=None if targets.S is None else targets.S[0], E_a=targets.E_a[0])

    @property
    def location(self) -> str:
        """Path or URL."""
        return self.files.location

    @property
    def fingerprint(self) -> str:
        return self.header.fingerprint

    def missing(self, image_hashes: Sequence[str], pixel_hashes: Sequence[str | None] | None = None) -> list[str]:
        """Those of the images that have no row, in the order given."""
        pairs = _pairs(image_hashes, pixel_hashes)
        return [image for image, pixel in pairs if self.position(image, pixel) is None]

    def row(self, image_hash: str, pixel_hash: str | None = None) -> int:
        """The row of an image, found by the hash of its file or else of its pixels.

        Raises:
            MissingTeacherRow: neither is known.
        """
        position = self.position(image_hash, pixel_hash)
        if position is None:
            raise self.missing_error([image_hash], 1)
        return int(self._rows[position])

    def position(self, image_hash: str, pixel_hash: str | None = None) -> int | None:
        """Where an image stands in the index, or `None`; hashes are plain SHA-256 also where the store is keyed.

        Raises:
            StoreError: the store's hashes are keyed and it was opened without the key.
        """
        position = self._images.find(self._name(image_hash))
        if position is None and pixel_hash is not None:
            position = self._pixels.find(self._name(pixel_hash))
        return position

    def read(self, image_hashes: Sequence[str], pixel_hashes: Sequence[str | None] | None = None) -> TeacherTargets:
        """Read the targets of several images, in the order given; a hash may repeat.

        Raises:
            MissingTeacherRow: some have no row; all are counted, the first is named.
            DamagedStore: bytes are gone or have changed.
        """
        found = [self.position(image, pixel) for image, pixel in _pairs(image_hashes, pixel_hashes)]
        if missing := [image for image, position in zip(image_hashes, found, strict=True) if position is None]:
            raise self.missing_error(missing, len(image_hashes))
        stored = self.stored_rows([position for position in found if position is not None])
        decoded = [self._decode(row) for row in stored]
        patches, width = self.header.grid.patches, self.header.width
        if has_patches(self.header.profile):
            E_v, S = _joined([rows.E_v for rows in decoded if rows.E_v is not None], patches, width), None
        else:
            E_v, S = None, _joined([similarity(rows) for rows in decoded], patches, patches)
        return TeacherTargets(E_v=E_v, S=S, E_a=_joined([rows.E_a for rows in decoded], patches))

    def failure(self, image_hash: str) -> tuple[str, str] | None:
        """The store's name of an image that failed when the store was made, and why it did."""
        name = self._name(image_hash)
        return (name, self.failures[name]) if name in self.failures else None

    def profile_of(self, position: int) -> Profile:
        """The profile of the shard in which a row lies."""
        return self._shards[int(self._rows[position]) // self.header.shard_rows].profile

    def stored_rows(self, positions: Sequence[int]) -> list[StoredRow]:
        """Read rows by their positions in the index, as they are stored; every checksum is checked.

        Raises:
            DamagedStore: bytes are gone, have changed, or are those of another row.
        """
        rows = [int(self._rows[position]) for position in positions]
        return self._reader.read(rows, [int(self._checksums[position]) for position in positions])

    def missing_error(self, missing: Sequence[str], total: int) -> MissingTeacherRow:
        """The error for images without a row; names the recorded reason where the first one failed."""
        first = missing[0]
        told = (
            f"{len(missing)} of {total} images have no row in {self.location} (teacher {self.header.teacher}, "
            f"{len(self)} rows)"
        )
        if failure := self.failure(first):
            return MissingTeacherRow(
                f"{told}; first: {first[:12]}, which failed when the store was made: {failure[1]}. Replace that file, "
                f"then add it with `medalign teacher extend {self.location} --weights FILE --manifest MANIFEST`, or "
                "leave the image out of the manifest"
            )
        return MissingTeacherRow(
            f"{told}; first: {first[:12]}. Add them with `medalign teacher extend {self.location} --weights FILE "
            "--manifest MANIFEST`"
        )

    def index_columns(self, names: Sequence[str]) -> Any:
        """Columns of index.parquet as an Arrow table, in the order of positions."""
        return read_columns(self.files, INDEX_FILE, names)

    def _name(self, digest: str) -> str:
        """The name under which the store knows a plain hash."""
        if self.header.hashing == PLAIN_HASHING:
            return digest
        if self._hash_key is None:
            raise StoreError(
                f"the image hashes of {self.location} are keyed ({self.header.hashing}): give the key of the lab that "
                "made it (--hash-key FILE, or data.hash_key in a training configuration)"
            )
        return self._hash_key.keyed(digest)

    @cached_property
    def _pixels(self) -> HashColumn:
        return hash_column(self.files, "pixel_hash")

    def _decode(self, stored: StoredRow) -> DecodedRows:
        """One row, batch first."""
        try:
            arrays = dict(row_values(stored, self.header.arrays(stored.profile)))
        except DamagedStore as error:
            raise damage(self.location, str(error)) from error
        batch = {name: values[None] for name, values in arrays.items()}
        return decode(stored.profile, batch, self.header.native_grid, self.header.grid)


def _joined(rows: Sequence[Tensor], *shape: int) -> Tensor:
    """Batches of one row as one batch; `shape` is that of a row, for a batch of none."""
    if len(rows) == 1:
        return rows[0]
    return torch.cat(list(rows)) if rows else torch.empty(0, *shape)


def _pairs(image_hashes: Sequence[str], pixel_hashes: Sequence[str | None] | None) -> Iterator[tuple[str, str | None]]:
    pixels = pixel_hashes if pixel_hashes is not None else [None] * len(image_hashes)
    return zip(image_hashes, pixels, strict=True)


def _fitting(hash_key: HashKey | None, header: StoreHeader, location: str) -> HashKey | None:
    if hash_key is not None and header.hashing != hash_key.hashing:
        raise StoreError(
            f"the image hashes of {location} are {header.hashing}, not {hash_key.hashing}: "
            + ("leave the key out" if header.hashing == PLAIN_HASHING else "give the key that it was made with")
        )
    return hash_key


def _unfinished(files: StoreFiles, header: StoreHeader) -> str:
    if not isinstance(files, LocalFiles):
        return f"{files.location} is unfinished: it has no {MANIFEST_FILE}; push it again from where it was made"
    done = len(committed_shards(files.path))
    return (
        f"{files.location} is unfinished: {done} of {header.shards} shards are committed. Repeat the command that made "
        f"it with --resume: medalign teacher extract --resume --teacher {header.teacher} --out {files.location} ..."
    )


def _failures(files: StoreFiles) -> tuple[dict[str, str], list[str]]:
    table = read_columns(files, FAILURES_FILE, ["image_hash", "reason"])
    pairs = list(zip(*(table.column(name).to_pylist() for name in ("image_hash", "reason")), strict=True))
    named = {image: reason for image, reason in pairs if image is not None}
    return named, [reason for image, reason in pairs if image is None]
