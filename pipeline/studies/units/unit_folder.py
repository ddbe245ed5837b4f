"""The folder of a unit of work: its record, written last, and the lock of the process that works on it."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, TypeAdapter

from ....atomic import is_temporary, write_whole
from ....digests import sha256_of
from ....errors import InputError
from ....saved_records import check_record
from ....student.file_errors import is_file, read_object, reason, writing
from ....teacher_cache.store.filesystem.locks import RunLock
from ....teacher_cache.store.store_errors import StoreInUse

RECORD_FILE: Final = "unit.json"
RUN_FOLDER: Final = "run"
"""What the unit wrote: the output of `student align`, `export`, `train` or `evaluate`."""
UNITS_FOLDER: Final = "units"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    kind: str
    label: str
    digest: str
    identity: dict[str, Any]
    seconds: float
    finished: str
    versions: dict[str, str]
    files: dict[str, str]
    result: dict[str, Any]


_RECORD: Final = TypeAdapter(_Record)


@dataclass(frozen=True, kw_only=True, slots=True)
class UnitRecord:
    """A finished unit of work."""

    kind: str
    label: str
    """For people: regime, arm, seed, stage of the first use."""
    digest: str
    """SHA-256 of `identity`."""
    identity: Mapping[str, Any]
    """Everything that determines the result."""
    seconds: float
    finished: str
    """Time in UTC, ISO 8601."""
    versions: Mapping[str, str]
    """Of medalign, its code and the libraries."""
    files: Mapping[str, str]
    """SHA-256 of each file of its run, by path in the run's folder."""
    result: Mapping[str, Any]

    def write(self, folder: Path) -> None:
        """Write the record; a unit is finished from then on."""
        values = {name: getattr(self, name) for name in self.__slots__}
        path = folder / RECORD_FILE
        with writing(path):
            write_whole(path, json.dumps(values, indent=2, allow_nan=False) + "\n")


def read_unit(folder: Path, digest: str) -> UnitRecord | None:
    """The record of a finished unit; None if it is unfinished.

    Raises:
        InputError: The record is damaged, or belongs to another unit.
    """
    path = folder / RECORD_FILE
    if not is_file(path):
        return None
    values = read_object(path)
    check_record(_RECORD, values, path, "record of a unit of work", f"Remove {folder} and run the study again")
    if values["digest"] != digest:
        raise InputError(
            f"{path} is the record of the unit {values['digest'][:16]}, but {digest[:16]} was expected: the folder was "
            "renamed or copied. Remove it and run the study again"
        )
    return UnitRecord(**values)


def digest_files(run: Path) -> dict[str, str]:
    """SHA-256 of each file of a run, by its path in the folder."""
    files = (path for path in sorted(run.rglob("*")) if path.is_file() and not is_temporary(path.name))
    return {path.relative_to(run).as_posix(): sha256_of(path) for path in files}


def check_files(folder: Path, record: UnitRecord) -> None:
    """Check that the files that a finished unit wrote are unchanged; others may have been added, such as a report.

    Raises:
        InputError: One is missing, unreadable or changed.
    """
    again = f"Restore it, or remove {folder} and run the study again"
    for name, digest in record.files.items():
        path = folder / RUN_FOLDER / name
        try:
            found = sha256_of(path)
        except OSError as error:
            raise InputError(
                f"{path}, which {record.kind} of {record.label} wrote: {reason(error)}. {again}"
            ) from error
        if found != digest:
            raise InputError(
                f"{path} was changed after {record.kind} of {record.label} had finished: its SHA-256 is {found}, but "
                f"{folder / RECORD_FILE} has {digest}. {again}"
            )


def finished_tests(out: Path) -> list[Path]:
    """The records of units that answered test questions, of any specification.

    Raises:
        InputError: A record is damaged.
    """
    records = sorted((out / UNITS_FOLDER).glob(f"answer-*/{RECORD_FILE}"))
    return [path for path in records if str(read_object(path).get("label")).endswith(", test")]


@contextmanager
def try_lock(folder: Path) -> Iterator[bool]:
    """Lock a unit's folder while the block runs; False if another process works on it."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    lock = RunLock(folder)
    try:
        lock.__enter__()
    except StoreInUse:
        yield False
        return
    try:
        yield True
    finally:
        lock.__exit__(None, None, None)
