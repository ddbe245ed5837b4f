"""Writing a store: created once, shard by shard, each committed by its ledger record, closed by the manifest.

A crash at any moment leaves the committed shards and nothing that a reader would take for more.
"""

import fcntl
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec

from ...errors import StoreError
from . import ledger
from .files import PARTIAL_SUFFIX, sync_folder, sync_tree
from .format import (
    ATTENTION,
    ATTRIBUTE,
    FAILURES_FILE,
    GROUP_FILE,
    INDEX_FILE,
    LEDGER_FOLDER,
    MANIFEST_FILE,
    PATCHES,
    StoreHeader,
    check_array_metadata,
    plan_digest,
    read_header,
    root_digest,
    row_digest,
    row_dtype,
    row_shape,
    shard_key,
)
from .index import IndexSummary, write_failures, write_index, write_plan
from .ledger import FailureRecord, ImageRecord, ShardRecord, StoredFile
from .manifest import file_digest, write_manifest
from .shards import ShardWriter


class ShardInProgress:
    """One shard on its way to disk; rows arrive in order, then `commit` or `abort`."""

    def __init__(self, store: Path, header: StoreHeader, shard: int) -> None:
        self._store, self._header, self.shard = store, header, shard
        self._rows = iter(header.shard_range(shard))
        self._files = {
            name: ShardWriter(store / shard_key(name, shard), header.shard_rows) for name in (PATCHES, ATTENTION)
        }
        self._images: list[ImageRecord] = []
        self._failures: list[FailureRecord] = []

    def append(
        self,
        patches: NDArray[np.float16],
        attention: NDArray[np.float32],
        *,
        image_hash: str,
        pixel_hash: str,
        size: tuple[int, int],
        max_abs_dS: float,
    ) -> None:
        """Write the next row: E_v [N, b] and E_a [N]; `size` is the upright image's width and height."""
        data = {
            name: np.ascontiguousarray(value, dtype=row_dtype(name)).data.cast("B")
            for name, value in ((PATCHES, patches), (ATTENTION, attention))
        }
        assert patches.shape == row_shape(self._header, PATCHES)
        assert attention.shape == row_shape(self._header, ATTENTION)
        for name, chunk in data.items():
            self._files[name].append(chunk)
        self._images.append(
            ImageRecord(
                row=next(self._rows),
                image_hash=image_hash,
                pixel_hash=pixel_hash,
                width=size[0],
                height=size[1],
                max_abs_dS=max_abs_dS,
                sha256=row_digest(data[PATCHES], data[ATTENTION]),
            )
        )

    def fail(self, image_hash: str, reason: str) -> None:
        """Leave the next row empty and record why."""
        for file in self._files.values():
            file.append(None)
        self._failures.append(FailureRecord(row=next(self._rows), image_hash=image_hash, reason=reason))

    def commit(self) -> int:
        """Bring both files and then the record to disk; returns the bytes of the files."""
        assert next(self._rows, None) is None, "a shard is committed whole"
        closed = {shard_key(name, self.shard): file.close() for name, file in self._files.items()}
        record = ShardRecord(
            shard=self.shard,
            files=tuple(StoredFile(key=key, bytes=f.bytes, sha256=f.sha256) for key, f in closed.items()),
            content_sha256=ledger.content_digest(self._images),
            images=tuple(self._images),
            failures=tuple(self._failures),
        )
        ledger.commit(self._store, record)
        return sum(file.bytes for file in closed.values())

    def abort(self) -> None:
        for file in self._files.values():
            file.abort()


class StoreWriter:
    """The only writer of one store while it is entered (`with`); a second one is refused."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.header = read_header(path)

    @classmethod
    def create(cls, path: Path, header: StoreHeader, image_hashes: Sequence[str]) -> "StoreWriter":
        """Make an empty store with a row for every hash, which are distinct and in row order.

        Raises:
            StoreError: `path` exists.
        """
        assert len(image_hashes) == header.rows
        assert plan_digest(image_hashes) == header.plan_sha256
        if path.exists():
            raise StoreError(_exists(path))
        path.parent.mkdir(parents=True, exist_ok=True)
        building = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL_SUFFIX}")
        try:
            _make_arrays(building, header)
            (building / LEDGER_FOLDER).mkdir()
            write_plan(building, header.fingerprint, image_hashes)
            sync_tree(building)
            building.rename(path)
        finally:
            shutil.rmtree(building, ignore_errors=True)
        sync_folder(path.parent)
        return cls(path)

    @classmethod
    def resume(cls, path: Path, header: StoreHeader) -> "StoreWriter":
        """Continue the store at `path`, which was begun for the same `header`.

        Raises:
            StoreError: it is another teacher's, another plan's or another geometry's; all differences are
            named.
        """
        writer = cls(path)
        differences = header.differences(writer.header)
        if differences:
            raise StoreError(
                f"{path} was begun with other settings and cannot be continued: this run has "
                f"{'; '.join(differences)}. Repeat the first run's settings, or choose another --out"
            )
        check_array_metadata(path, header)
        return writer

    def __enter__(self) -> "StoreWriter":
        self._folder = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(self._folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._folder)
            raise StoreError(
                f"another run is writing to {self.path}; wait for it or stop it, then repeat this command with --resume"
            ) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._folder)  # releases the lock, as a killed process does

    def prepare(self) -> list[int]:
        """Clear what a killed run left behind and return the numbers of the shards that remain to be written.

        A committed shard whose record is damaged or whose files are gone or of another length is written again.
        """
        for leftover in self.path.rglob(f"*{PARTIAL_SUFFIX}"):
            leftover.unlink()
        whole = {shard for shard in ledger.committed_shards(self.path) if self._is_whole(shard)}
        missing = [shard for shard in range(self.header.shards) if shard not in whole]
        if missing:
            (self.path / MANIFEST_FILE).unlink(missing_ok=True)
        for shard in missing:
            (self.path / ledger.record_key(shard)).unlink(missing_ok=True)
        return missing

    def begin(self, shard: int) -> ShardInProgress:
        return ShardInProgress(self.path, self.header, shard)

    def finish(self) -> str:
        """Write index, failures and manifest once every shard is committed; returns the root digest.

        Doing it again writes the same.
        """
        records = [ledger.read_record(self.path, shard) for shard in range(self.header.shards)]
        images = [image for record in records for image in record.images]
        failures = [failure for record in records for failure in record.failures]
        root = root_digest(
            self.header.fingerprint,
            [(image.image_hash, image.sha256) for image in images],
            [failure.image_hash for failure in failures],
        )
        write_failures(self.path, failures)
        write_index(self.path, IndexSummary(self.header.fingerprint, root), images)
        digests = {file.key: file.sha256 for record in records for file in record.files}
        others = [GROUP_FILE, *(f"{name}/{GROUP_FILE}" for name in (PATCHES, ATTENTION)), INDEX_FILE, FAILURES_FILE]
        for key in (*others, *map(ledger.record_key, range(self.header.shards))):
            digests[key] = file_digest(self.path / key)
        write_manifest(self.path, digests)
        return root

    def _is_whole(self, shard: int) -> bool:
        try:
            record = ledger.read_record(self.path, shard)
        except StoreError:
            return False
        files = [(self.path / file.key, file.bytes) for file in record.files]
        return all(file.is_file() and file.stat().st_size == size for file, size in files)


def _make_arrays(path: Path, header: StoreHeader) -> None:
    attributes = {ATTRIBUTE: header.model_dump(mode="json")}
    group = zarr.create_group(store=str(path), zarr_format=3, attributes=attributes)
    axes = {PATCHES: ["image", "patch", "channel"], ATTENTION: ["image", "patch"]}
    for name in axes:
        shape = row_shape(header, name)
        group.create_array(
            name,
            shape=(header.rows, *shape),
            chunks=(1, *shape),
            shards=(header.shard_rows, *shape),
            dtype=np.dtype(row_dtype(name)),
            compressors=(Crc32cCodec(),),
            fill_value=float("nan"),
            dimension_names=axes[name],
        )


def _exists(path: Path) -> str:
    try:
        header = read_header(path)
    except StoreError:
        return f"{path} exists and is not a teacher store; choose another --out"
    done = len(ledger.committed_shards(path))
    return (
        f"{path} exists: a store of {header.teacher} with {done} of {header.shards} shards. "
        "Add --resume to continue it, or choose another --out"
    )
