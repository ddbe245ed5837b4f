"""What a converted or exported model folder says of itself: where it comes from and how it is meant to be asked."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from ... import __version__
from ...errors import InputError
from ...teacher_cache.store.format.header import DataUse
from ..alignment.rotation import RotationMode
from ..file_errors import is_file, read_object, reading

STUDENT_RECORD = "medalign-student.json"
STUDENT_FORMAT = "medalign-student"
STUDENT_VERSION = 1

Record = TypeVar("Record")


@dataclass(frozen=True, kw_only=True, slots=True)
class StudentRecord:
    """Written beside the weights of `medalign student convert` and `export`."""

    source: str
    """Name of the folder that was converted, or of the exported adapter's base; never a path."""
    source_fingerprint: str
    """Fingerprint of that folder's files."""
    family: str | None
    """Which original format it had; None: transformers' own."""
    template: str
    layers: tuple[int, ...] = ()
    """Zero-based decoder layers at whose input W acts."""
    rotation: RotationMode = "none"
    """full: rotation.safetensors acts at inference. none: the folder is a plain Llava."""
    adapter_fingerprint: str | None = None
    """SHA-256 over the adapter's weights that were merged; None: nothing was trained."""
    known_rows: int | None = None
    """Rows of the embedding tables as published, without one added for `<image>`; None: all of them."""
    data_use: DataUse | None = None
    """Strictest data-use class of what it was trained with; None: unknown, or nothing was trained."""
    medalign: str = __version__
    format: str = STUDENT_FORMAT
    version: int = STUDENT_VERSION


def fingerprint_adapter(folder: Path) -> str:
    """SHA-256 over everything that was trained: LoRA, W, and parts that were trained whole."""
    digest = hashlib.sha256()
    with reading(folder):
        for path in sorted(folder.glob("*.safetensors")):
            digest.update(f"{path.name} {path.stat().st_size}\n".encode())
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
    return digest.hexdigest()


def write_student_record(record: StudentRecord, folder: Path) -> None:
    """Write the record beside the weights."""
    (folder / STUDENT_RECORD).write_text(json.dumps(asdict(record), indent=2) + "\n")


def read_student_record(folder: Path) -> StudentRecord | None:
    """The record of a folder; None for a model that medalign did not write.

    Raises:
        InputError: a newer medalign wrote it, or it is damaged.
    """
    path = folder / STUDENT_RECORD
    if not is_file(path):
        return None
    values = read_object(path)
    version = values.get("version")
    if values.get("format") != STUDENT_FORMAT or not isinstance(version, int) or version > STUDENT_VERSION:
        raise InputError(
            f"{path} has format {values.get('format')!r} version {version!r}; this medalign ({__version__}) "
            f"reads {STUDENT_FORMAT!r} up to version {STUDENT_VERSION}"
        )
    return as_record(StudentRecord, values, path)


def as_record(kind: type[Record], values: Mapping[str, Any], path: Path) -> Record:
    """JSON values as a record: every field that has no default is there, none is unknown, each is of its type.

    Raises:
        InputError: all that is wrong, by field.
    """
    unknown = sorted(values.keys() - set(kind.__annotations__))
    problems = [f"unknown field {name!r}" for name in unknown]
    try:
        record = TypeAdapter(kind).validate_json(json.dumps(dict(values)), strict=True)
    except ValidationError as error:
        for problem in error.errors():
            name = ".".join(map(str, problem["loc"]))
            missing = problem["type"].startswith("missing")
            problems.append(f"no field {name!r}" if missing else f"{name} is {problem['input']!r}: {problem['msg']}")
    if problems:
        raise InputError(f"{path} is damaged: {'; '.join(problems)}")
    return record
