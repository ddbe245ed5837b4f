"""Copying stored rows of finished stores into a new store, for merging and subsetting.

Rows are neither recomputed nor converted to another precision. The checksum of every chunk and the digest of every row
are verified. Rows of different profiles get separate segments.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .... import __version__
from ....atomic import leftover_notes
from ....choices import DataUse, Profile
from ....errors import StoreError
from ....plain_text import counted
from ....progress import Progress, Silent
from ..file_names import MANIFEST_FILE, SIGNATURE_FILE
from ..filesystem.disk_space import require_space
from ..filesystem.locks import RunLock
from ..format.header import FORMAT_VERSION, StoreHeader, default_shard_rows, plan_digest, row_digest
from ..format.profiles import PROFILES
from ..reading.reader import TeacherStore
from ..reading.root_digest import version_note
from ..reading.rows import damage, row_values
from ..records.ledger import read_record
from ..records.zarr_metadata import read_header
from .writer import ShardInProgress, StoreWriter

_ROWS_AT_ONCE = 16
"""Rows per read: concurrent requests to a remote store, about 20 MB of memory."""
_INDEX_COLUMNS = ("image_hash", "pixel_hash", "width", "height", "max_abs_dS", "sha256")


@dataclass(frozen=True, kw_only=True, slots=True)
class RowsOf:
    """Rows to copy from one store, given by their positions in its index."""

    store: TeacherStore
    positions: Sequence[int]


@dataclass(frozen=True, kw_only=True, slots=True)
class About:
    """Descriptive header fields of a new store."""

    data_use: DataUse
    title: str | None = None
    licence: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Row:
    """One row with data of the new store."""

    store: TeacherStore
    position: int
    profile: Profile
    image_hash: str
    pixel_hash: str
    width: int
    height: int
    max_abs_dS: float
    sha256: str


def copy_rows(
    sources: Sequence[RowsOf],
    failures: Sequence[tuple[str, str]],
    out: Path,
    about: About,
    *,
    unreadable: Sequence[str] = (),
    resume: bool = False,
    progress: Progress | None = None,
    before_finish: Callable[[], None] = lambda: None,
) -> str:
    """Write a store at `out` with rows of stores that have the same fingerprint; returns its root digest.

    `failures` are (image hash, reason) pairs of images without a row; `unreadable` are the reasons for files without a
    hash. Images of all sources are distinct. With `resume`, shards that an earlier call committed are kept.
    `before_finish` is called when all rows are copied, and may raise to leave the store unfinished.

    Raises:
        StoreError: `out` exists (without `resume`, or with other rows), is being written, or its disk is too full.
        DamagedStore: a row of a source is damaged; the message names it.
    """
    progress = progress or Silent()
    segments = _segments([row for source in sources for row in _rows(source)], failures)
    names = [_hash(entry) for segment in segments for entry in segment]
    header = _header(sources, segments, plan_digest(names), about)
    for note in leftover_notes(out):
        progress.note(note)
    if resume and out.is_dir():
        _require_same_images(out, header)
        writer = StoreWriter.resume(out, header)
    else:
        writer = StoreWriter.create(out, header, names, unreadable)
    if writer.header.format_version < FORMAT_VERSION:  # started by an earlier version of medalign
        progress.note(version_note(str(out)))
    with RunLock(out):
        pending = writer.pending()
        shards = dict(enumerate(_shards(header, segments)))
        _require_same_rows(out, {number: shards[number] for number in shards if number not in pending})
        missing = sum(_bytes(header, shards[number]) for number in pending)
        require_space(out, missing, f"{sum(len(shards[number]) for number in pending)} rows")
        progress.start("copying rows", sum(len(header.shard_range(shard)) for shard in pending))
        for number in pending:
            _copy_shard(writer, number, shards[number], progress)
        before_finish()
        return writer.finish()


def _require_same_images(out: Path, header: StoreHeader) -> None:
    """Check that the store at `out` is planned for the images to copy.

    Raises:
        StoreError: it is planned for other images.
    """
    existing = read_header(out)
    if (existing.fingerprint, existing.plan_sha256) == (header.fingerprint, header.plan_sha256):
        return
    is_finished = (out / MANIFEST_FILE).is_file()
    what = "a finished store" if is_finished else "an unfinished store"
    kind = (
        "other images"
        if existing.fingerprint == header.fingerprint
        else f"another teacher or settings ({existing.teacher})"
    )
    raise StoreError(
        f"{out} is {what} of {kind} with {counted(existing.planned, 'image')}, but this copy has "
        f"{counted(header.planned, 'image')}; nothing was changed. Choose another --out"
        + ("" if is_finished else ", or remove it, then run the command again")
    )


def _require_same_rows(out: Path, committed: Mapping[int, Sequence["Entry"]]) -> None:
    """Check that the rows that an earlier call committed match the rows that the sources have now.

    Raises:
        StoreError: the sources have changed in between.
    """
    for number, entries in committed.items():
        record = read_record(out, number)
        copied = {image.image_hash: image.sha256 for image in record.images}
        if copied != {entry.image_hash: entry.sha256 for entry in entries if isinstance(entry, _Row)}:
            raise StoreError(
                f"the sources have changed since shard {number} of {out} was copied, so the result would be a mixture: "
                f"remove {out}, then run the command again"
            )


def _bytes(header: StoreHeader, entries: Sequence["Entry"]) -> int:
    """Maximum size of the rows of a shard, in bytes."""
    rows = [entry for entry in entries if isinstance(entry, _Row)]
    return sum(array.nbytes for row in rows for array in header.arrays(row.profile))


def tell_versions(stores: Sequence[TeacherStore], progress: Progress) -> None:
    """Report the fields of format 1 that are copied unverified, and that the signatures of sources are not copied."""
    for store in stores:
        if store.header.format_version == 1:
            progress.note(f"{version_note(store.location)} The copy takes these fields unverified from the source")
        if store.files.exists(SIGNATURE_FILE):
            progress.note(f"the signature of {store.location} is not copied with its rows: sign the new store yourself")


def _rows(source: RowsOf) -> Iterator[_Row]:
    table = source.store.index_columns(_INDEX_COLUMNS).take(np.asarray(source.positions, np.int64))
    for position, values in zip(source.positions, table.to_pylist(), strict=True):
        yield _Row(store=source.store, position=position, profile=source.store.profile_of(position), **values)


Entry = _Row | tuple[str, str]
"""A row with data, or an image hash and the reason why it has none."""


def _segments(rows: Sequence[_Row], failures: Sequence[tuple[str, str]]) -> list[list[Entry]]:
    """Group the rows by profile, since a shard has one profile; failures come last."""
    groups: list[list[Entry]] = [[row for row in rows if row.profile == profile] for profile in PROFILES]
    segments = [group for group in groups if group] or [[]]
    segments[-1] += failures
    return segments


def _hash(entry: Entry) -> str:
    return entry.image_hash if isinstance(entry, _Row) else entry[0]


def _header(sources: Sequence[RowsOf], segments: Sequence[Sequence[Entry]], plan: str, about: About) -> StoreHeader:
    """The first source's header, with the plan of the new store and the largest tolerance of all sources."""
    headers = [source.store.header for source in sources]
    tolerances = [header.tolerance for header in headers]
    counts = tuple(len(segment) for segment in segments)
    new: dict[str, Any] = {
        "segments": counts,
        "shard_rows": default_shard_rows(sum(counts), len(headers[0].arrays())),
        "plan_sha256": plan,
        "tolerance": None if None in tolerances else max(t for t in tolerances if t is not None),
        "format_version": FORMAT_VERSION,
        "data_use": about.data_use,
        "title": about.title,
        "licence": about.licence,
        "created_by": f"medalign {__version__}",
    }
    return StoreHeader.model_validate(dict(headers[0]) | new)


def _shards(header: StoreHeader, segments: Sequence[Sequence[Entry]]) -> Iterator[Sequence[Entry]]:
    for segment in segments:
        for start in range(0, len(segment), header.shard_rows):
            yield segment[start : start + header.shard_rows]


def _copy_shard(writer: StoreWriter, number: int, entries: Sequence[Entry], progress: Progress) -> None:
    profile = next((entry.profile for entry in entries if isinstance(entry, _Row)), None)
    shard = writer.begin(number, profile)
    try:
        for start in range(0, len(entries), _ROWS_AT_ONCE):
            group = entries[start : start + _ROWS_AT_ONCE]
            _append(shard, group)
            progress.advance(len(group))
        shard.commit()
    except BaseException:
        shard.abort()
        raise


def _append(shard: ShardInProgress, entries: Sequence[Entry]) -> None:
    """Read a group of rows, store by store, and write them in order."""
    rows = [entry for entry in entries if isinstance(entry, _Row)]
    chunks: dict[tuple[int, int], Sequence[memoryview]] = {}
    for store in {id(row.store): row.store for row in rows}.values():
        requested = [row for row in rows if row.store is store]
        for row, stored in zip(requested, store.stored_rows([row.position for row in requested]), strict=True):
            values = row_values(stored)
            if row_digest(value.data.cast("B") for value in values.values()) != row.sha256:
                raise damage(store.location, f"{stored.where} does not match its digest in the index")
            chunks[id(store), row.position] = stored.chunks
    for entry in entries:
        if not isinstance(entry, _Row):
            shard.fail(*entry)
            continue
        shard.append_stored(
            chunks[id(entry.store), entry.position],
            image_hash=entry.image_hash,
            pixel_hash=entry.pixel_hash,
            size=(entry.width, entry.height),
            max_abs_dS=entry.max_abs_dS,
            sha256=entry.sha256,
        )
