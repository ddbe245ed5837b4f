"""The ledger: one JSON record for each committed shard. A shard without a record does not exist."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, FailFast, Field

from ....choices import Profile
from ....errors import InputError
from ....plain_text import counted
from ..access.store_files import MOST_WHOLE, LocalFiles
from ..file_names import LEDGER_FOLDER
from ..filesystem.durable_files import write_atomically
from ..format.header import Sha256
from ..store_errors import DamagedStore
from .schemas import parse_json, parse_model

UNREADABLE_KEY = f"{LEDGER_FOLDER}/unreadable.json"
_MOST_dS = 2.01
"""The largest difference of two cosines is 2, plus rounding."""

LONGEST_REASON = 900
"""Longest reason why an image has no row, in characters; the writer truncates longer ones."""
MOST_UNREADABLE = 1_000_000
"""Largest number of unreadable files."""
Row = Annotated[int, Field(ge=0, lt=2**62)]
Pixels = Annotated[int, Field(gt=0, lt=2**31)]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ImageRecord(_Record):
    """One image that has a row."""

    row: Row
    image_hash: Sha256
    pixel_hash: Sha256
    width: Pixels
    """Width of the upright image, pixels."""
    height: Pixels
    max_abs_dS: Annotated[float, Field(ge=0, le=_MOST_dS, allow_inf_nan=False)]
    """Largest change of any entry of the patch-cosine matrix (Eq. 3) caused by the profile."""
    crc32c: Annotated[int, Field(ge=0, lt=2**32)]
    """crc32c over the checksums of the row's chunks; it ties the row to its bytes, so swapped shards are detected."""
    sha256: Sha256
    """`row_digest` of the stored values."""


class FailureRecord(_Record):
    """One image of the plan that has no row."""

    row: Row
    image_hash: Sha256
    reason: Annotated[str, Field(max_length=LONGEST_REASON)]
    """One line; never a path."""


class StoredFile(_Record):
    """One shard file; `key` is its path inside the store."""

    key: Annotated[str, Field(max_length=200)]
    bytes: Annotated[int, Field(gt=0, lt=2**62)]
    sha256: Sha256


class ShardRecord(_Record):
    """The record of a committed shard: its files, content digest, images and failures, in row order."""

    version: Annotated[int, Field(ge=1, le=1)] = 1
    shard: Annotated[int, Field(ge=0)]
    profile: Profile
    files: Annotated[tuple[StoredFile, ...], FailFast()]
    """One for each array of the profile, in their order."""
    content_sha256: Sha256
    images: Annotated[tuple[ImageRecord, ...], FailFast()]
    failures: Annotated[tuple[FailureRecord, ...], FailFast()]


def content_digest(images: Sequence[ImageRecord]) -> str:
    """SHA-256 over lines of `image_hash row_digest`, in row order."""
    lines = "".join(f"{image.image_hash} {image.sha256}\n" for image in images)
    return hashlib.sha256(lines.encode()).hexdigest()


def record_key(shard: int) -> str:
    return f"{LEDGER_FOLDER}/{shard:06d}.json"


def commit(store: Path, record: ShardRecord) -> None:
    """Write the record that commits a shard; its files must be on disk already."""
    write_atomically(store / record_key(record.shard), record_bytes(record))


def committed_shards(store: Path) -> list[int]:
    """Numbers of the shards that have a record, in ascending order."""
    return sorted(int(file.stem) for file in (store / LEDGER_FOLDER).glob("*.json") if file.stem.isdecimal())


def read_record(store: Path, shard: int) -> ShardRecord:
    """Read and validate one shard's record.

    Raises:
        DamagedStore: it is missing or not a valid record of this shard.
    """
    key = record_key(shard)
    try:
        data = LocalFiles(store).read(key)
    except FileNotFoundError:
        raise DamagedStore(f"shard {shard} of {store} has no ledger record ({key})") from None
    except OSError as error:
        raise DamagedStore(f"{store / key} cannot be read: {error.strerror}") from error
    return parse_record(data, shard, str(store / key))


def parse_record(data: bytes, shard: int, where: str) -> ShardRecord:
    """Validate the record of a shard.

    Raises:
        DamagedStore: it is not a valid record, or is the record of another shard.
    """
    record = parse_model(ShardRecord, data, MOST_WHOLE, where)
    if record.shard != shard:
        raise DamagedStore(f"{where} is the record of another shard")
    return record


def record_bytes(record: ShardRecord) -> bytes:
    """The content of a record's file."""
    return record.model_dump_json().encode()


def write_unreadable(store: Path, reasons: Sequence[str]) -> None:
    """Record the reasons why files could not be read, so they have no hash and no row. Without reasons, do nothing.

    Raises:
        InputError: there are more reasons than a store can record.
    """
    if not reasons:
        return
    data = json.dumps(sorted(reason[:LONGEST_REASON] for reason in reasons)).encode()
    if len(reasons) > MOST_UNREADABLE or len(data) > MOST_WHOLE:
        raise InputError(
            f"{counted(len(reasons), 'image file')} cannot be read, which is more than a store can record: check the "
            "folder"
        )
    write_atomically(store / UNREADABLE_KEY, data)


def read_unreadable(store: Path) -> list[str]:
    """The reasons that `write_unreadable` recorded.

    Raises:
        DamagedStore: the record is not a list of strings.
    """
    try:
        data = LocalFiles(store).read(UNREADABLE_KEY)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DamagedStore(f"{store / UNREADABLE_KEY} cannot be read: {error.strerror}") from error
    return parse_unreadable(data, str(store / UNREADABLE_KEY))


def parse_unreadable(data: bytes, where: str) -> list[str]:
    """Validate a list of reasons.

    Raises:
        DamagedStore: it is not a list of strings.
    """
    reasons = parse_json(data, MOST_WHOLE, where)
    if not (
        isinstance(reasons, list) and len(reasons) <= MOST_UNREADABLE and all(_is_reason(reason) for reason in reasons)
    ):
        raise DamagedStore(f"{where} is damaged: it is not a list of strings")
    return reasons


def _is_reason(value: object) -> bool:
    return isinstance(value, str) and len(value) <= LONGEST_REASON
