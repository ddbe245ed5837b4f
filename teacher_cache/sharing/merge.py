"""Merging stores of the same teacher: rows are copied, not recomputed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...choices import DataUse
from ...errors import SettingsError, StoreError
from ...progress import Progress
from ..store.access.remote import open_files
from ..store.checking.unaltered import require_root
from ..store.format.header import StoreHeader
from ..store.reading.reader import TeacherStore
from ..store.writing.row_copies import About, RowsOf, copy_rows, tell_versions
from .data_use_gate import strictest
from .steady_source import after_change, opened
from .transfer_counts import CountingFiles


@dataclass(frozen=True, kw_only=True, slots=True)
class MergeReport:
    """Result of a merge."""

    sources: tuple[str, ...]
    out: Path
    data_use: DataUse
    images: int
    failures: int
    taken: tuple[int, ...]
    """Number of images from each source."""
    repeated: int
    """Number of skipped rows: an earlier source has the same image."""
    differing: tuple[str, ...]
    """Hashes of duplicate images whose rows differ; the first source's row was taken."""
    bytes_transferred: int
    root_sha256: str


def merge(sources: Sequence[str], out: Path, *, progress: Progress) -> MergeReport:
    """Write a store at `out` with the images of all sources (paths or URLs); for duplicate images the first one counts.

    The result has the strictest data-use class of the sources, and their title and license if they agree. To resume an
    interrupted merge, call it again.

    Raises:
        SettingsError: there are fewer than two sources.
        StoreError: the sources' fingerprints differ, one cannot be read or does not match its root digest, or `out` is
            another store.
    """
    if len(sources) < 2:
        raise SettingsError("pass two or more stores to merge")
    files = [CountingFiles(open_files(source)) for source in sources]
    stores = [TeacherStore(each) for each in files]
    states = [opened(each, store) for each, store in zip(files, stores, strict=True)]
    for store in stores:
        require_root(store)
        _require_same(stores[0], store)
    tell_versions(stores, progress)
    choice = _choose(stores)
    failures = {image: reason for store in reversed(stores) for image, reason in store.failures.items()}
    failures = {image: reason for image, reason in failures.items() if image not in choice.digests}
    headers = [store.header for store in stores]
    about = About(
        data_use=strictest([header.data_use for header in headers]),
        title=_common_value([header.title for header in headers]),
        licence=_common_value([header.licence for header in headers]),
    )
    _tell_dropped("title", [header.title for header in headers], progress)
    _tell_dropped("license", [header.licence for header in headers], progress)
    unreadable = [reason for store in stores for reason in store.unreadable]

    def require_unchanged() -> None:
        for each, store, state in zip(files, stores, states, strict=True):
            state.require(each, store.root_sha256, after_change(out))

    root = copy_rows(
        choice.rows,
        list(failures.items()),
        out,
        about,
        unreadable=unreadable,
        resume=True,
        progress=progress,
        before_finish=require_unchanged,
    )
    return MergeReport(
        sources=tuple(sources),
        out=out,
        data_use=about.data_use,
        images=len(choice.digests),
        failures=len(failures),
        taken=tuple(len(rows.positions) for rows in choice.rows),
        repeated=sum(map(len, stores)) - len(choice.digests),
        differing=tuple(choice.differing),
        bytes_transferred=sum(each.bytes_read for each in files),
        root_sha256=root,
    )


def _tell_dropped(what: str, stated: Sequence[str | None], progress: Progress) -> None:
    """Note that stores state different titles or licenses, of which the merged store keeps none."""
    values = list(dict.fromkeys("none" if value is None else repr(value) for value in stated))
    if len(values) > 1:
        progress.note(
            f"the sources state a {what} of {' and '.join(values)}, so the merged store states none: tell its readers"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Choice:
    """The rows that are taken from each store."""

    rows: list[RowsOf]
    digests: dict[str, str]
    """Image hash -> digest of the row that is taken."""
    differing: list[str]


def _choose(stores: Sequence[TeacherStore]) -> _Choice:
    """Take each image's row from the first store that has it."""
    choice = _Choice(rows=[], digests={}, differing=[])
    for store in stores:
        table, positions = store.index_columns(["image_hash", "sha256"]), []
        hashes, digests = (table.column(name).to_pylist() for name in ("image_hash", "sha256"))
        for position, (image_hash, digest) in enumerate(zip(hashes, digests, strict=True)):
            taken = choice.digests.get(image_hash)
            if taken is None:
                choice.digests[image_hash] = digest
                positions.append(position)
            elif taken != digest:
                choice.differing.append(image_hash)
        choice.rows.append(RowsOf(store=store, positions=positions))
    return choice


def _require_same(first: TeacherStore, other: TeacherStore) -> None:
    if first.fingerprint == other.fingerprint:
        return
    raise StoreError(
        f"cannot merge {first.location} and {other.location}, because their rows have different meanings: "
        f"{'; '.join(_differences(first.header, other.header))}. Extract one again with the settings of the other"
    )


def _differences(first: StoreHeader, other: StoreHeader) -> list[str]:
    """The fields of the fingerprint that differ, with both values."""
    ours, theirs = first.content(), other.content()
    ours, theirs = ({"jpeg_scale": "full"} | content for content in (ours, theirs))
    return [f"{name} is {ours[name]} and {theirs[name]}" for name in ours if ours[name] != theirs[name]]


def _common_value(values: Sequence[str | None]) -> str | None:
    """The common value, or `None` if the values differ."""
    return values[0] if len(set(values)) == 1 else None
