"""The last step of writing a store: what follows from the ledger alone, and the manifest that says `finished`."""

from collections.abc import Sequence
from pathlib import Path

from . import ledger
from .card import render_card
from .croissant import render_croissant
from .files import remove_leftovers, write_atomically
from .format import (
    CARD_FILE,
    CROISSANT_FILE,
    FAILURES_FILE,
    INDEX_FILE,
    StoreHeader,
    root_digest,
)
from .index import ShardEntry, write_failures, write_index
from .ledger import FailureRecord, ImageRecord, ShardRecord
from .manifest import file_digest, write_manifest
from .metadata import metadata_keys

DERIVED_FILES = (INDEX_FILE, FAILURES_FILE, CARD_FILE, CROISSANT_FILE)
"""Files that `close_store` writes from header and ledger."""


def close_store(path: Path, header: StoreHeader) -> str:
    """Write the derived files and the manifest of a store whose shards are all committed; returns the root digest.

    Doing it again writes the same.

    Raises:
        DamagedStore: a shard has no valid record.
    """
    remove_leftovers(path)
    records = [ledger.read_record(path, shard) for shard in range(header.shards)]
    unreadable = ledger.read_unreadable(path)
    root = ledger_root(header, records)
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
    write_manifest(path, digests)
    return root


def descriptions(
    header: StoreHeader, *, images: int, failures: int, root_sha256: str, index_sha256: str
) -> dict[str, str]:
    """The texts for people and for data set tools: file -> content."""
    card = render_card(header, images=images, failures=failures, root_sha256=root_sha256)
    croissant = render_croissant(
        header, images=images, failures=failures, root_sha256=root_sha256, index_sha256=index_sha256
    )
    return {CARD_FILE: card, CROISSANT_FILE: croissant}


def small_files(header: StoreHeader, unreadable: Sequence[str]) -> list[str]:
    """Paths inside a finished store of everything but shard files and the manifest."""
    records = [ledger.record_key(shard) for shard in range(header.shards)]
    return [*metadata_keys(header), *DERIVED_FILES, *records, *([ledger.UNREADABLE_KEY] if unreadable else [])]


def all_images(records: Sequence[ShardRecord]) -> list[ImageRecord]:
    """Every image that has a row, in row order."""
    return [image for record in records for image in record.images]


def final_failures(records: Sequence[ShardRecord]) -> list[FailureRecord]:
    """The failures that no later segment made good, one for each image, in row order."""
    good = {image.image_hash for record in records for image in record.images}
    last = {failure.image_hash: failure for record in records for failure in record.failures}
    return sorted((f for f in last.values() if f.image_hash not in good), key=lambda failure: failure.row)


def superseded_failures(records: Sequence[ShardRecord]) -> list[FailureRecord]:
    """The other failures, in row order."""
    final = {failure.row for failure in final_failures(records)}
    return [failure for record in records for failure in record.failures if failure.row not in final]


def shard_entries(records: Sequence[ShardRecord]) -> list[ShardEntry]:
    """What the index tells readers of every shard."""
    return [ShardEntry(profile=record.profile, bytes=tuple(file.bytes for file in record.files)) for record in records]


def ledger_root(header: StoreHeader, records: Sequence[ShardRecord]) -> str:
    """The root digest that the ledger implies."""
    return root_digest(
        header.fingerprint,
        [(image.image_hash, image.sha256) for image in all_images(records)],
        [failure.image_hash for failure in final_failures(records)],
    )
