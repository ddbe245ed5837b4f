"""Reading a finished store by image hash. Needs neither zarr nor a teacher, and never returns a made-up
row."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from .format import (
    ATTENTION,
    FAILURES_FILE,
    INDEX_FILE,
    PATCHES,
    StoreHeader,
    check_array_metadata,
    read_header,
    row_dtype,
    row_shape,
    shard_key,
)
from .index import HashColumn, hash_column, read_columns, read_summary
from .ledger import committed_shards
from .manifest import is_finished
from .problems import DamagedStore, MissingTeacherRow, UnfinishedStore
from .shards import ShardReader


@dataclass(frozen=True, slots=True)
class TeacherTarget:
    """What the teacher said about one image, float32, on the store's grid, row-major from the top left."""

    E_v: Float[Tensor, "patch channel"]
    E_a: Float[Tensor, "patch"]
    """Raw attention: not normalised."""


@dataclass(frozen=True, slots=True)
class TeacherTargets:
    """The same for several images, in the order that was asked for."""

    E_v: Float[Tensor, "image patch channel"]
    E_a: Float[Tensor, "image patch"]


def open_store(path: str | Path) -> "TeacherStore":
    """Open a finished store for reading.

    Raises:
        StoreError: no store, a foreign or newer one, an unfinished one, or one whose index is damaged.
    """
    return TeacherStore(Path(path))


class TeacherStore:
    """A finished store. Pickles as its path; holds no open file, so it survives fork, spawn and threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.header = read_header(path)
        if not is_finished(path):
            raise UnfinishedStore(_unfinished(path, self.header))
        check_array_metadata(path, self.header)
        summary = read_summary(path)
        if summary.fingerprint != self.header.fingerprint or summary.root_sha256 is None:
            raise DamagedStore(f"{path / INDEX_FILE} belongs to another store than {path / 'zarr.json'}")
        self.root_sha256 = summary.root_sha256
        self.failures = _failures(path)
        """Image hash -> why this image has no row."""
        self._images = hash_column(path / INDEX_FILE, "image_hash")
        rows = read_columns(path / INDEX_FILE, ["row"]).column("row").to_numpy()
        self._rows: NDArray[np.int64] = np.ascontiguousarray(rows)
        if len(self._images) + len(self.failures) != self.header.rows:
            raise DamagedStore(
                f"{path} should have {self.header.rows} images, but its index has {len(self._images)} and "
                f"its "
                f"failures {len(self.failures)}"
            )
        self._shards: dict[tuple[str, int], ShardReader] = {}
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type["TeacherStore"], tuple[Path]]:
        return TeacherStore, (self.path,)

    def __len__(self) -> int:
        """Number of images that have a row."""
        return len(self._images)

    def __contains__(self, image_hash: object) -> bool:
        return isinstance(image_hash, str) and self._find(image_hash, None) is not None

    def __getitem__(self, image_hash: str) -> TeacherTarget:
        """Read one image's targets.

        Raises:
            MissingTeacherRow: it has no row.
            DamagedStore: its bytes are gone or have changed.
        """
        targets = self.read([image_hash])
        return TeacherTarget(E_v=targets.E_v[0], E_a=targets.E_a[0])

    @property
    def fingerprint(self) -> str:
        return self.header.fingerprint

    def missing(self, image_hashes: Sequence[str], pixel_hashes: Sequence[str | None] | None = None) -> list[str]:
        """Those of the images that have no row, in the order given."""
        pixels = pixel_hashes if pixel_hashes is not None else [None] * len(image_hashes)
        pairs = zip(image_hashes, pixels, strict=True)
        return [image for image, pixel in pairs if self._find(image, pixel) is None]

    def row(self, image_hash: str, pixel_hash: str | None = None) -> int:
        """The row of an image, found by the hash of its file or else of its pixels.

        Raises:
            MissingTeacherRow: neither is known.
        """
        row = self._find(image_hash, pixel_hash)
        if row is None:
            raise self.missing_error([image_hash], 1)
        return row

    def read(self, image_hashes: Sequence[str], pixel_hashes: Sequence[str | None] | None = None) -> TeacherTargets:
        """Read the targets of several images, in the order given; a hash may repeat.

        Raises:
            MissingTeacherRow: some have no row; all are counted, the first is named.
            DamagedStore: bytes are gone or have changed.
        """
        pixels = pixel_hashes if pixel_hashes is not None else [None] * len(image_hashes)
        found = [self._find(image, pixel) for image, pixel in zip(image_hashes, pixels, strict=True)]
        if missing := [image for image, row in zip(image_hashes, found, strict=True) if row is None]:
            raise self.missing_error(missing, len(image_hashes))
        rows = [row for row in found if row is not None]
        targets = {name: torch.empty(len(rows), *row_shape(self.header, name)) for name in (PATCHES, ATTENTION)}
        for name, target in targets.items():
            for position, row in enumerate(rows):
                target[position] = torch.from_numpy(self._stored_row(name, row))  # widens to float32
        return TeacherTargets(E_v=targets[PATCHES], E_a=targets[ATTENTION])

    def missing_error(self, missing: Sequence[str], total: int) -> MissingTeacherRow:
        """The error for images without a row; names the recorded reason where the first one failed."""
        first, header = missing[0], self.header
        told = (
            f"{len(missing)} of {total} images have no row in {self.path} (teacher {header.teacher}, {len(self)} rows)"
        )
        if reason := self.failures.get(first):
            return MissingTeacherRow(
                f"{told}; first: {first[:12]}, which failed when the store was made: {reason}. Replace that "
                f"file "
                "and extract again, or leave the image out of the manifest"
            )
        return MissingTeacherRow(
            f"{told}; first: {first[:12]}. Run `medalign teacher extract --teacher {header.teacher} "
            f"--weights FILE "
            f"--manifest MANIFEST --grid {header.grid} --out NEW_STORE` on a manifest that has all of them"
        )

    def _find(self, image_hash: str, pixel_hash: str | None) -> int | None:
        position = self._images.find(image_hash)
        if position is None and pixel_hash is not None:
            position = self._pixels.find(pixel_hash)
        return None if position is None else int(self._rows[position])

    @cached_property
    def _pixels(self) -> HashColumn:
        return hash_column(self.path / INDEX_FILE, "pixel_hash")

    def _stored_row(self, name: str, row: int) -> NDArray[np.floating]:
        """One row as it is stored: [N, b] float16 or [N] float32.

        Raises:
            DamagedStore: its chunk is absent, short, damaged or not finite.
        """
        shard, chunk = divmod(row, self.header.shard_rows)
        shape, dtype = row_shape(self.header, name), np.dtype(row_dtype(name))
        try:
            data = self._shard(name, shard).read(chunk, prod(shape) * dtype.itemsize)
        except DamagedStore as error:
            raise DamagedStore(f"{error}. {self._repair(shard)}") from error
        if data is None:
            raise DamagedStore(f"row {row} of {name} in {self.path} holds nothing. {self._repair(shard)}")
        values: NDArray[np.floating] = np.frombuffer(data, dtype=dtype).reshape(shape)
        if name == ATTENTION and not np.isfinite(values).all():
            raise DamagedStore(f"row {row} of {name} in {self.path} is not finite. {self._repair(shard)}")
        return values

    def _shard(self, name: str, shard: int) -> ShardReader:
        with self._lock:
            found = self._shards.get((name, shard))
            if found is None:
                found = ShardReader(self.path / shard_key(name, shard), self.header.shard_rows)
                self._shards[name, shard] = found
            return found

    def _repair(self, shard: int) -> str:
        return (
            f"Run `medalign teacher verify {self.path}` to see all damage. To compute shard {shard} again, "
            f"delete "
            f"its file {shard_key(PATCHES, shard)} and repeat the extract command with --resume"
        )


def _unfinished(path: Path, header: StoreHeader) -> str:
    done = len(committed_shards(path))
    return (
        f"{path} is unfinished: {done} of {header.shards} shards are committed. Repeat the command that made "
        f"it "
        f"with --resume: medalign teacher extract --resume --teacher {header.teacher} --out {path} ..."
    )


def _failures(path: Path) -> dict[str, str]:
    table = read_columns(path / FAILURES_FILE, ["image_hash", "reason"])
    return dict(zip(*(table.column(name).to_pylist() for name in ("image_hash", "reason")), strict=True))
