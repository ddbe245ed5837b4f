"""Writing a store: create it, write each shard and commit it with its ledger record, then write the manifest.

A crash at any time leaves the committed shards and nothing that a reader would mistake for data. The caller must hold
the locks of `teacher_cache/store/filesystem/locks.py`; this module takes none.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ....atomic import new_folder, sync_folder
from ....choices import Profile
from ....errors import StoreError
from ....plain_text import as_typed
from ..access.store_files import LocalFiles
from ..file_names import LEDGER_FOLDER, MANIFEST_FILE
from ..filesystem.durable_files import folder_mode, make_folders, remove_leftovers
from ..format.chunks import encode_chunk
from ..format.header import StoreHeader, plan_digest, row_digest
from ..format.shard_file import Bytes, ShardWriter, row_checksum
from ..records import ledger
from ..records.index import write_plan
from ..records.ledger import FailureRecord, ImageRecord, ShardRecord, StoredFile
from ..records.zarr_metadata import check_arrays, read_header, write_metadata
from ..store_errors import DamagedStore, TargetInUse
from .closing import ensure_closed


class ShardInProgress:
    """A shard that is being written: add rows in order, then call `commit` or `abort`."""

    def __init__(self, store: Path, header: StoreHeader, shard: int, profile: Profile) -> None:
        self._store, self._header, self.shard, self.profile = store, header, shard, profile
        self._rows = iter(header.shard_range(shard))
        self._arrays = header.arrays(profile)
        self._keys = [header.shard_key(profile, array, shard) for array in self._arrays]
        self._files = [ShardWriter(store / key, header.shard_rows) for key in self._keys]
        self._images: list[ImageRecord] = []
        self._failures: list[FailureRecord] = []

    def append(
        self,
        arrays: Mapping[str, NDArray[Any]],
        *,
        image_hash: str,
        pixel_hash: str,
        size: tuple[int, int],
        max_abs_dS: float,
    ) -> None:
        """Write the next row; `size` is the width and height of the upright image."""
        chunks = [encode_chunk(array, arrays[array.name]) for array in self._arrays]
        self.append_stored(
            [stored for _, stored in chunks],
            image_hash=image_hash,
            pixel_hash=pixel_hash,
            size=size,
            max_abs_dS=max_abs_dS,
            sha256=row_digest(raw for raw, _ in chunks),
        )

    def append_stored(
        self,
        chunks: Sequence[Bytes],
        *,
        image_hash: str,
        pixel_hash: str,
        size: tuple[int, int],
        max_abs_dS: float,
        sha256: str,
    ) -> None:
        """Write the next row from stored chunks, one for each array of the shard's profile."""
        checksums = [file.append(chunk) for file, chunk in zip(self._files, chunks, strict=True)]
        self._images.append(
            ImageRecord(
                row=next(self._rows),
                image_hash=image_hash,
                pixel_hash=pixel_hash,
                width=size[0],
                height=size[1],
                max_abs_dS=max_abs_dS,
                crc32c=row_checksum(checksums),
                sha256=sha256,
            )
        )

    def fail(self, image_hash: str, reason: str) -> None:
        """Leave the next row empty and record the reason."""
        for file in self._files:
            file.skip()
        reason = reason[: ledger.LONGEST_REASON]
        self._failures.append(FailureRecord(row=next(self._rows), image_hash=image_hash, reason=reason))

    def commit(self) -> int:
        """Write all files and then the record to disk; returns the size of the files in bytes.

        Files of an earlier attempt in another profile are removed.
        """
        assert next(self._rows, None) is None, "only a complete shard can be committed"
        closed = [file.close() for file in self._files]
        for key in shard_keys(self._header, self.shard):
            if key not in self._keys:
                (self._store / key).unlink(missing_ok=True)
        files = zip(self._keys, closed, strict=True)
        record = ShardRecord(
            shard=self.shard,
            profile=self.profile,
            files=tuple(StoredFile(key=key, bytes=file.bytes, sha256=file.sha256) for key, file in files),
            content_sha256=ledger.content_digest(self._images),
            images=tuple(self._images),
            failures=tuple(self._failures),
        )
        ledger.commit(self._store, record)
        return sum(file.bytes for file in closed)

    def abort(self) -> None:
        for file in self._files:
            file.abort()


class StoreWriter:
    """Writes shards of an existing store; the caller must hold the store's locks."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.header = read_header(path)

    @classmethod
    def create(
        cls, path: Path, header: StoreHeader, image_hashes: Sequence[str], unreadable: Sequence[str] = ()
    ) -> "StoreWriter":
        """Create an empty store with a row for every hash, in row order.

        `unreadable` are reasons why other files could not be hashed; they have no row.

        Raises:
            TargetInUse: `path` exists.
        """
        assert len(image_hashes) == header.planned
        assert plan_digest(image_hashes) == header.plan_sha256
        if os.path.lexists(path):
            raise TargetInUse(_exists(path))
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with new_folder(path, folder_mode(header.data_use)) as building:
                make_folders(building / LEDGER_FOLDER)
                write_metadata(building, header)
                write_plan(building, header, image_hashes)
                ledger.write_unreadable(building, unreadable)
        except OSError:
            if os.path.lexists(path):  # another task created it first
                raise TargetInUse(_exists(path)) from None
            raise
        return cls(path)

    @classmethod
    def resume(cls, path: Path, header: StoreHeader) -> "StoreWriter":
        """Continue the store at `path`, which must have the same `header` except for its format version.

        Raises:
            TargetInUse: the teacher, plan, geometry or another field differs; the message lists all differences.
        """
        writer = cls(path)
        header = header.model_copy(update={"format_version": writer.header.format_version})
        differences = header.differences(writer.header)
        if differences:
            raise TargetInUse(
                f"{path} was created with different settings and cannot be continued: this run has "
                f"{'; '.join(differences)}. Use the settings of the first run, or choose another --out"
            )
        check_arrays(LocalFiles(path), header, header.profiles)
        return writer

    def missing(self, shards: Iterable[int]) -> list[int]:
        """The shards that have no record, or whose files are missing or have the wrong size; nothing is changed."""
        return [shard for shard in shards if not self._is_whole(shard)]

    def pending(self, shards: Iterable[int] | None = None) -> list[int]:
        """The shards (default: of all) that remain to be written.

        They include committed shards whose record is damaged, or whose files are missing or have the wrong size.
        Temporary files of killed runs are removed. If any shard remains, the store becomes unfinished.
        """
        candidates = range(self.header.shards) if shards is None else shards
        remove_leftovers(self.path)
        missing = self.missing(candidates)
        if missing:
            (self.path / MANIFEST_FILE).unlink(missing_ok=True)
            sync_folder(self.path)
            for shard in missing:
                (self.path / ledger.record_key(shard)).unlink(missing_ok=True)
            sync_folder(self.path / LEDGER_FOLDER)
        return missing

    def begin(self, shard: int, profile: Profile | None = None) -> ShardInProgress:
        """Start writing a shard, by default in the store's own profile."""
        return ShardInProgress(self.path, self.header, shard, profile or self.header.profile)

    def finish(self) -> str:
        """Write index, failures, cards and manifest after every shard is committed; returns the root digest.

        Repeating it changes nothing.
        """
        return ensure_closed(self.path, self.header)

    def _is_whole(self, shard: int) -> bool:
        try:
            record = ledger.read_record(self.path, shard)
        except DamagedStore:
            return False
        files = [(self.path / file.key, file.bytes) for file in record.files]
        return all(file.is_file() and file.stat().st_size == size for file, size in files)


def shard_keys(header: StoreHeader, shard: int) -> list[str]:
    """Paths of a shard's files in every profile that it can have."""
    return [header.shard_key(profile, array, shard) for profile in header.profiles for array in header.arrays(profile)]


def _exists(path: Path) -> str:
    try:
        header = read_header(path)
    except StoreError:
        return f"{path} exists and is not a teacher store: choose another --out"
    if (path / MANIFEST_FILE).is_file():
        return (
            f"{path} exists and is finished: a store of {header.teacher} with the grid {header.grid}. Another grid or "
            f"other settings need another --out; `medalign store extend {as_typed(path)}` adds images"
        )
    done = len(ledger.committed_shards(path))
    return (
        f"{path} exists: a store of {header.teacher} with {done} of {header.shards} shards. "
        "Add --resume to continue it, or choose another --out"
    )
