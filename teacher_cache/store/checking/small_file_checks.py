"""Checking the small files of a store against the manifest, the header and the ledger."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from .... import __version__
from ....atomic import is_temporary
from ....errors import StoreError
from ..cards.store_card import without_metadata
from ..file_names import FAILURES_FILE, GROUP_FILE, INDEX_FILE, MANIFEST_FILE, SIGNATURE_FILE
from ..format.header import FORMAT_VERSION, plan_digest, same_json
from ..reading.root_digest import all_images, final_failures, ledger_root
from ..records.index import failures_table, index_table, read_columns
from ..records.ledger import UNREADABLE_KEY, FailureRecord, ImageRecord, record_key
from ..records.zarr_metadata import check_array, metadata_keys, read_json
from ..store_errors import DamagedStore, Obstacle
from ..store_problem import Kind, Problem
from ..writing.closing import DERIVED_FILES, descriptions, shard_entries, superseded_failures
from ..writing.writer import shard_keys
from .partial_view import StoreView

CREATED_BY = f"medalign {__version__}"
"""The cards are rendered and compared only if this version wrote them; their wording is not part of the format."""


def small_file_problems(view: StoreView) -> Iterator[Problem]:
    """All problems except those of ledger records, shard files and unexpected files."""
    yield from _listed_problems(view)
    yield from _metadata_problems(view)
    if not view.was_finished:
        yield from _plan_problems(view)
        return
    yield from _manifest_problems(view)
    yield from _summary_problems(view)
    yield from _table_problems(view)
    yield from _card_problems(view)


def stranger_problems(view: StoreView, present: Sequence[str]) -> Iterator[Problem]:
    """Unexpected files, which are not part of the store; shards that are being written are expected."""
    unknown = set(range(view.header.shards)) - view.records.keys()
    known = {*expected_files(view), *(key for shard in unknown for key in shard_keys(view.header, shard))}
    for key in present:
        if is_temporary(key.rpartition("/")[2]):
            if view.closed:  # otherwise it may be in use
                yield _problem("leftover", key, "is a temporary file of a command that was killed")
        elif key not in known:
            yield _problem("stranger", key, "is not part of the store")


def expected_files(view: StoreView) -> list[str]:
    """Paths inside the store of all files except the manifest whose names are known."""
    records = [record_key(shard) for shard in range(view.header.shards) if view.closed or shard in view.records]
    return [*_small_keys(view), *records, *(file.key for record in view.records.values() for file in record.files)]


def _small_keys(view: StoreView) -> list[str]:
    unreadable = [UNREADABLE_KEY] if _has_unreadable(view) else []
    signature = [SIGNATURE_FILE] if view.files.exists(SIGNATURE_FILE) or view.listed(SIGNATURE_FILE) else []
    derived = DERIVED_FILES if view.was_finished else [INDEX_FILE]
    return [*metadata_keys(view.header), *derived, *unreadable, *signature]


def _has_unreadable(view: StoreView) -> bool:
    return view.files.exists(UNREADABLE_KEY) or view.listed(UNREADABLE_KEY) is not None


def _listed_problems(view: StoreView) -> Iterator[Problem]:
    metadata = metadata_keys(view.header)
    for key in _small_keys(view):
        if key == SIGNATURE_FILE:  # checked in `verification.py`
            continue
        kind: Kind = "header" if key == GROUP_FILE else "metadata" if key in metadata else "derived"
        digest = view.digest(key)
        if digest is None:
            yield _problem(kind, key, view.absence(key))
        elif digest != (view.listed(key) or digest):
            yield _problem(kind, key, f"does not match its SHA-256 in {MANIFEST_FILE}")


def _metadata_problems(view: StoreView) -> Iterator[Problem]:
    """Problems of the metadata of groups and arrays; missing files are reported elsewhere."""
    groups = dict.fromkeys(metadata_keys(view.header))
    for profile in view.header.profiles:
        for array in view.header.arrays(profile):
            key = f"{view.header.array_key(profile, array)}/{GROUP_FILE}"
            del groups[key]
            try:
                if view.files.exists(key):
                    check_array(view.files, view.header, profile, array)
            except Obstacle:
                raise
            except StoreError as error:
                yield _problem("metadata", key, str(error))
    for key in groups:
        if view.files.exists(key) and not _is_group(view, key):
            yield _problem("header" if key == GROUP_FILE else "metadata", key, "is not the metadata of a Zarr group")


def _is_group(view: StoreView, key: str) -> bool:
    try:
        metadata = read_json(view.files, key)
    except Obstacle:
        raise
    except StoreError:
        return False
    return same_json([metadata.get("zarr_format"), metadata.get("node_type")], [3, "group"])


def _plan_problems(view: StoreView) -> Iterator[Problem]:
    """Problems of the index of an unfinished store, which contains the plan."""
    try:
        planned = read_columns(view.files, INDEX_FILE, ["image_hash"], view.header).column("image_hash").to_pylist()
    except DamagedStore as error:
        yield _problem("derived", INDEX_FILE, str(error))
        return
    if plan_digest(map(str, planned)) != view.header.plan_sha256:
        yield _problem("derived", INDEX_FILE, "its images do not match the plan in the header")


def _manifest_problems(view: StoreView) -> Iterator[Problem]:
    """Problems of the manifest: it must list exactly the store's files, and the same digests as the ledger."""
    if view.manifest is None:
        large = view.closed and view.data(MANIFEST_FILE) is None
        damaged = view.absence(MANIFEST_FILE) if large else "is not a sorted list of digests and paths"
        missing = "is missing, although the store was finished"
        yield _problem("derived", MANIFEST_FILE, damaged if view.closed else missing)
        return
    unknown = set(range(view.header.shards)) - view.records.keys()
    expected = set(expected_files(view))
    unlisted = sorted(expected - view.manifest.keys())
    foreign = view.manifest.keys() - expected - {key for shard in unknown for key in shard_keys(view.header, shard)}
    if unlisted == [INDEX_FILE] and not foreign:
        yield _problem("root", MANIFEST_FILE, f"lists all files except {INDEX_FILE}, which contains the root digest")
    elif unlisted:
        yield _problem("derived", MANIFEST_FILE, f"does not list {', '.join(unlisted[:3])} ({len(unlisted)} in total)")
    if foreign:
        listed = ", ".join(sorted(foreign)[:3])
        what = f"lists {listed} ({len(foreign)} in total), which is not part of the store"
        yield _problem("derived", MANIFEST_FILE, what)
    for record in view.records.values():
        for file in record.files:
            if view.listed(file.key) not in (None, file.sha256):
                yield _problem("derived", MANIFEST_FILE, f"lists a different SHA-256 for {file.key} from the ledger's")


def _summary_problems(view: StoreView) -> Iterator[Problem]:
    """Problems of the summary of the store in index.parquet."""
    summary = view.summary
    if summary is None:
        if view.confirmed(INDEX_FILE):
            yield _problem("root", INDEX_FILE, f"cannot be read, although it matches {MANIFEST_FILE}")
        elif view.files.exists(INDEX_FILE):
            yield _problem("derived", INDEX_FILE, "cannot be read")
        return
    if summary.fingerprint != view.header.fingerprint:
        yield _problem("derived", INDEX_FILE, "its fingerprint does not match the header")
    if not view.complete:
        return
    records = list(view.records.values())
    root = None if view.unreadable is None else ledger_root(view.header, records, view.unreadable)
    if root not in (None, summary.root_sha256):
        kind: Kind = "root" if view.root_inputs_confirmed else "derived"
        what = f"its root digest {summary.root_sha256} does not match header and ledger, which have {root}"
        yield _problem(kind, INDEX_FILE, what)
    if (list(summary.shards), list(summary.superseded)) != (shard_entries(records), superseded_failures(records)):
        yield _problem("derived", INDEX_FILE, "its table of shards does not match the ledger")
    planned = [(image.row, image.image_hash) for image in all_images(records)]
    planned += [(failure.row, failure.image_hash) for record in records for failure in record.failures]
    if plan_digest(image for _, image in sorted(planned)) != view.header.plan_sha256:
        yield _problem("content", GROUP_FILE, "its plan does not match the images in the ledger")


def _table_problems(view: StoreView) -> Iterator[Problem]:
    """Problems of index and failures: rows that do not match the known records."""
    records = list(view.records.values())
    tables = [(INDEX_FILE, list(ImageRecord.model_fields), index_table(all_images(records)))]
    if view.unreadable is None and view.data(UNREADABLE_KEY) is not None:
        yield _problem("derived", UNREADABLE_KEY, "is not a list of strings")
    if view.unreadable is not None and view.complete:
        failures = failures_table(final_failures(records), view.unreadable)
        tables.append((FAILURES_FILE, list(FailureRecord.model_fields), failures))
    for key, names, expected in tables:
        if not view.files.exists(key):
            continue
        try:
            stored = read_columns(view.files, key, names, view.header)
        except DamagedStore:
            yield _problem("derived", key, "cannot be read")
            continue
        if key == INDEX_FILE and not view.complete:
            stored = stored.filter([row // view.header.shard_rows in view.records for row in stored["row"].to_pylist()])
        if not stored.equals(expected.select(names)):
            what = "does not match the ledger"
            yield Problem(kind="derived", key=key, what=what, rows=_unequal(stored, expected))


def _unequal(stored: Any, expected: Any) -> tuple[int, ...]:
    """Rows that are in only one of two tables, or differ between them."""
    one, other = ({row["row"]: row for row in table.to_pylist()} for table in (stored, expected))
    rows = one.keys() | other.keys()
    return tuple(sorted(row for row in rows if row is not None and one.get(row) != other.get(row)))


_EARLIER_COMMANDS: Final = (
    ("medalign store verify STORE                      #", "medalign teacher verify STORE                    #"),
    ("medalign store verify", "medalign teacher verify"),
)
"""Commands in cards, and their names before the rename, which the same version wrote."""


def _card_problems(view: StoreView) -> Iterator[Problem]:
    """Problems of README.md and croissant.json, if this version of medalign wrote them."""
    summary, index_sha256 = view.summary, view.digest(INDEX_FILE)
    if view.header.created_by != CREATED_BY or summary is None or index_sha256 is None or summary.root_sha256 is None:
        return
    if view.header.format_version < FORMAT_VERSION:
        return  # the wording has changed since then
    try:
        counts = [len(read_columns(view.files, key, ["row"], view.header)) for key in (INDEX_FILE, FAILURES_FILE)]
    except DamagedStore:
        return  # reported elsewhere, and the counts are unknown
    texts = descriptions(
        view.header, images=counts[0], failures=counts[1], root_sha256=summary.root_sha256, index_sha256=index_sha256
    )
    for key, text in texts.items():
        data = view.data(key)
        if data is not None and data not in _written_by_this_version(text):
            yield _problem("derived", key, "does not match the header and the index")


def _written_by_this_version(card: str) -> set[bytes]:
    """The forms in which this version has written a card: now, before cards had metadata, and with other commands."""
    plain = without_metadata(card)
    earlier = plain
    for command, before in _EARLIER_COMMANDS:
        earlier = earlier.replace(command, before)
    return {card.encode(), plain.encode(), earlier.encode()}


def _problem(kind: Kind, key: str, what: str) -> Problem:
    return Problem(kind=kind, key=key, what=what)
