"""Copying some images of a store into a new store; from a URL, little more than their rows is transferred."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...choices import DataUse
from ...progress import Progress
from ..store.access.remote import open_files
from ..store.checking.unaltered import require_root
from ..store.format.keyed_hashes import HashKey
from ..store.reading.reader import TeacherStore
from ..store.writing.row_copies import About, RowsOf, copy_rows, tell_versions
from .steady_source import after_change, opened
from .transfer_counts import CountingFiles


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """A requested image, given by the plain hash of its file and, if known, of its pixels."""

    image_hash: str
    pixel_hash: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class SubsetReport:
    """Result of copying a subset."""

    source: str
    out: Path
    data_use: DataUse
    images: int
    failures: int
    bytes_transferred: int
    root_sha256: str


def subset(
    source: str, out: Path, wanted: Sequence[Wanted], *, hash_key: HashKey | None = None, progress: Progress
) -> SubsetReport:
    """Write a store at `out` with the requested images of the store at a path or URL, in the source's order.

    Images that failed in the source stay failures. To resume an interrupted subset, call it again.

    Raises:
        StoreError: some images are not in the source, it cannot be read or does not match its root digest, or `out` is
            another store.
    """
    files = CountingFiles(open_files(source))
    store = TeacherStore(files, hash_key)
    state = opened(files, store)
    require_root(store)
    tell_versions([store], progress)
    positions, failures, missing = set(), {}, []
    for image in wanted:
        position = store.position(image.image_hash, image.pixel_hash)
        if position is not None:
            positions.add(position)
        elif failure := store.failure(image.image_hash):
            failures[failure[0]] = failure[1]
        else:
            missing.append(image.image_hash)
    if missing:
        raise store.missing_error(missing, len(wanted))
    about = About(data_use=store.header.data_use, title=store.header.title, licence=store.header.licence)
    rows = RowsOf(store=store, positions=sorted(positions))
    root = copy_rows(
        [rows],
        list(failures.items()),
        out,
        about,
        resume=True,
        progress=progress,
        before_finish=lambda: state.require(files, store.root_sha256, after_change(out)),
    )
    return SubsetReport(
        source=source,
        out=out,
        data_use=about.data_use,
        images=len(positions),
        failures=len(failures),
        bytes_transferred=files.bytes_read,
        root_sha256=root,
    )
