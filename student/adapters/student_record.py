"""The record of a converted or exported model folder: its source and how it is prompted."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from ... import __version__
from ...atomic import write_whole
from ...choices import DataUse, RotationMode
from ...digests import add_file
from ...errors import InputError
from ..file_errors import is_file, read_object, reading

STUDENT_RECORD = "medalign-student.json"
STUDENT_FORMAT = "medalign-student"
STUDENT_VERSION = 1

Record = TypeVar("Record")


@dataclass(frozen=True, kw_only=True, slots=True)
class StudentRecord:
    """Record that `medalign student convert` and `export` write next to the weights."""

    source: str
    """Name of the folder that was converted, or of the exported adapter's base; never a path."""
    source_fingerprint: str
    """Fingerprint of that folder's files."""
    family: str | None
    """Original format of the source; None for transformers' own format."""
    template: str
    layers: tuple[int, ...] = ()
    """Zero-based decoder layers at whose input W acts."""
    rotation: RotationMode = "none"
    """full: W in rotation.safetensors is applied at inference. none: the folder is a plain Llava."""
    adapter_fingerprint: str | None = None
    """SHA-256 of the merged adapter's weights; None if nothing was trained."""
    known_rows: int | None = None
    """Rows of the published embedding tables, without the row added for `<image>`; None means all rows."""
    data_use: DataUse | None = None
    """Strictest data-use class of the training data; None if unknown, or if nothing was trained."""
    medalign: str = __version__
    format: str = STUDENT_FORMAT
    version: int = STUDENT_VERSION


def fingerprint_adapter(folder: Path) -> str:
    """SHA-256 of all trained weights: LoRA, W, fully trained parts, and the adapter that it starts from, if any."""
    digest = hashlib.sha256()
    with reading(folder):
        for path in sorted(folder.glob("*.safetensors")):
            digest.update(f"{path.name} {path.stat().st_size}\n".encode())
            with path.open("rb") as file:
                add_file(digest, file)
        record = folder / "medalign.json"
        start = read_object(record).get("start") if is_file(record) else None
    if isinstance(start, dict):
        digest.update(f"start {start.get('adapter_fingerprint')}\n".encode())
    return digest.hexdigest()


def write_student_record(record: StudentRecord, folder: Path) -> None:
    """Write the record next to the weights."""
    write_whole(folder / STUDENT_RECORD, json.dumps(asdict(record), indent=2) + "\n")


def read_student_record(folder: Path) -> StudentRecord | None:
    """Read the record of a folder; None for a model that medalign did not write.

    Raises:
        InputError: it was written by a newer medalign, or is damaged.
    """
    path = folder / STUDENT_RECORD
    if not is_file(path):
        return None
    values = read_object(path)
    version = values.get("version")
    if values.get("format") != STUDENT_FORMAT or not isinstance(version, int) or version > STUDENT_VERSION:
        raise InputError(
            f"{path} has format {values.get('format')!r} version {version!r}; this medalign ({__version__}) "
            f"reads {STUDENT_FORMAT!r} up to version {STUDENT_VERSION}. Update medalign to use it"
        )
    return as_record(StudentRecord, values, path)


def as_record(kind: type[Record], values: Mapping[str, Any], path: Path) -> Record:
    """Convert JSON values to a record; required fields must be present, unknown fields are refused, types are checked.

    Raises:
        InputError: lists every problem, by field.
    """
    unknown = sorted(values.keys() - set(kind.__annotations__))
    problems = [f"unknown field {name!r}" for name in unknown]
    try:
        record = TypeAdapter(kind).validate_json(json.dumps(dict(values)), strict=True)
    except ValidationError as error:
        for problem in error.errors():
            name = ".".join(map(str, problem["loc"]))
            missing = problem["type"].startswith("missing")
            problems.append(
                f"field {name!r} is missing" if missing else f"{name} is {problem['input']!r}: {problem['msg']}"
            )
    if problems:
        raise InputError(f"{path} is damaged: {'; '.join(problems)}")
    return record
