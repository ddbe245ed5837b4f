"""Finishing a store: the files that follow from header and ledger, and the manifest that marks it as finished."""

from collections.abc import Sequence
from pathlib import Path

from ..access.store_files import LocalFiles
from ..cards.croissant import render_croissant
from ..cards.store_card import render_card
from ..file_names import CARD_FILE, CROISSANT_FILE, FAILURES_FILE, INDEX_FILE, MANIFEST_FILE, SIGNATURE_FILE
from ..filesystem.durable_files import remove_leftovers, write_atomically
from ..format.header import StoreHeader, same_json
from ..reading.root_digest import all_images, final_failures, ledger_root
from ..records import ledger
from ..records.digest_list import file_digest, parse_manifest, write_manifest
from ..records.index import ShardEntry, read_summary, write_failures, write_index
from ..records.ledger import FailureRecord, ShardRecord
from ..records.zarr_metadata import metadata_keys
from ..signatures.signature import is_signed, remove_stale_signature
from ..store_errors import GET_IT_AGAIN, AlteredStore, DamagedStore

DERIVED_FILES = (INDEX_FILE, FAILURES_FILE, CARD_FILE, CROISSANT_FILE)
"""Files that `close_store` writes from header and ledger."""


def ensure_closed(path: Path, header: StoreHeader) -> str:
    """Like `close_store`, but write nothing if every small file matches the manifest.

    A later version of medalign may render a different card, which must not change a finished store.
    """
    records, unreadable = _ledger(path, header)
    if not _is_closed(path, header, records, unreadable):
        return close_store(path, header)
    remove_leftovers(path)
    _require_unchanged(path, header, records, unreadable)
    return ledger_root(header, records, unreadable)


def _ledger(path: Path, header: StoreHeader) -> tuple[list[ShardRecord], list[str]]:
    return [ledger.read_record(path, shard) for shard in range(header.shards)], ledger.read_unreadable(path)


def _is_closed(path: Path, header: StoreHeader, records: Sequence[ShardRecord], unreadable: Sequence[str]) -> bool:
    """Whether the manifest lists exactly the files of the store, and all small files match it."""
    try:
        listed = parse_manifest(LocalFiles(path).read(MANIFEST_FILE), MANIFEST_FILE)
    except (OSError, DamagedStore):
        return False
    data = {file.key: file.sha256 for record in records for file in record.files}
    small = [*small_files(header, unreadable), *([SIGNATURE_FILE] if is_signed(path) else [])]
    if listed.keys() != {*data, *small} or any(listed[key] != digest for key, digest in data.items()):
        return False
    try:
        return all(file_digest(path / key) == listed[key] for key in small)
    except FileNotFoundError:
        return False


def close_store(path: Path, header: StoreHeader) -> str:
    """Write the derived files and the manifest of a store whose shards are all committed; returns the root digest.

    Repeating it writes the same files. A signature of another root digest is removed.

    Raises:
        DamagedStore: a shard has no valid record.
        AlteredStore: the store has a manifest, but its header or ledger does not match its root digest.
    """
    remove_leftovers(path)
    records, unreadable = _ledger(path, header)
    root = ledger_root(header, records, unreadable)
    _require_unchanged(path, header, records, unreadable)
    remove_stale_signature(path, header, root)
    images, failures = all_images(records), final_failures(records)
    write_failures(path, failures, unreadable)
    write_index(path, header, root, shard_entries(records), images, superseded_failures(records))
    counts = {"images": len(images), "failures": len(failures) + len(unreadable)}
    index_sha256 = file_digest(path / INDEX_FILE)
    for key, text in descriptions(header, **counts, root_sha256=root, index_sha256=index_sha256).items():
        write_atomically(path / key, text.encode())
    digests = {file.key: file.sha256 for record in records for file in record.files}
    for key in small_files(header, unreadable):
        digests[key] = file_digest(path / key)
    if (path / SIGNATURE_FILE).is_file():
        digests[SIGNATURE_FILE] = file_digest(path / SIGNATURE_FILE)
    write_manifest(path, digests)
    return root


def _require_unchanged(
    path: Path, header: StoreHeader, records: Sequence[ShardRecord], unreadable: Sequence[str]
) -> None:
    """Check that finishing a finished store again keeps its root digest, so that it hides no change.

    Commands that change a store remove its manifest first; converting changes only the version.
    """
    try:
        listed = parse_manifest(LocalFiles(path).read(MANIFEST_FILE), MANIFEST_FILE)
        if listed.get(INDEX_FILE) != file_digest(path / INDEX_FILE):
            return  # the index is damaged, so there is nothing to compare with
    except (OSError, DamagedStore):
        return
    try:
        before = read_summary(LocalFiles(path))
    except DamagedStore as error:
        raise AlteredStore(
            f"{path} cannot be finished again: {error}, although its index matches {MANIFEST_FILE}. "
            f"{GET_IT_AGAIN.capitalize()}"
        ) from error
    earlier = header.model_copy(update={"format_version": before.header.get("format_version")})
    root = ledger_root(earlier, records, unreadable)
    if before.root_sha256 != root or not same_json(before.header, earlier.model_dump(mode="json")):
        raise AlteredStore(
            f"{path} does not match its root digest: its index has {before.root_sha256}, but its header and ledger "
            f"have {root}. Finishing it again would hide this change; {GET_IT_AGAIN}"
        )


def descriptions(
    header: StoreHeader, *, images: int, failures: int, root_sha256: str, index_sha256: str
) -> dict[str, str]:
    """Render the store card and the Croissant file: file name -> content."""
    card = render_card(header, images=images, failures=failures, root_sha256=root_sha256)
    croissant = render_croissant(
        header, images=images, failures=failures, root_sha256=root_sha256, index_sha256=index_sha256
    )
    return {CARD_FILE: card, CROISSANT_FILE: croissant}


def small_files(header: StoreHeader, unreadable: Sequence[str]) -> list[str]:
    """Paths inside a finished store of all files except shard files and the manifest."""
    records = [ledger.record_key(shard) for shard in range(header.shards)]
    return [*metadata_keys(header), *DERIVED_FILES, *records, *([ledger.UNREADABLE_KEY] if unreadable else [])]


def superseded_failures(records: Sequence[ShardRecord]) -> list[FailureRecord]:
    """The failures that a later segment has superseded, in row order."""
    final = {failure.row for failure in final_failures(records)}
    return [failure for record in records for failure in record.failures if failure.row not in final]


def shard_entries(records: Sequence[ShardRecord]) -> list[ShardEntry]:
    """The entries for all shards in the index."""
    return [ShardEntry(profile=record.profile, bytes=tuple(file.bytes for file in record.files)) for record in records]
