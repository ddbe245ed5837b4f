"""What a converted or exported model folder says of itself: where it comes from and how it is meant to be asked."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args

from .. import __version__
from ..errors import InputError
from ..teacher_cache.store.format import DataUse
from .rotation import RotationMode

STUDENT_RECORD = "medalign-student.json"
STUDENT_FORMAT = "medalign-student"
STUDENT_VERSION = 1


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
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text())
        if values["format"] != STUDENT_FORMAT or values["version"] > STUDENT_VERSION:
            raise InputError(
                f"{path} has format {values['format']!r} version {values['version']}; this medalign ({__version__}) "
                f"reads {STUDENT_FORMAT!r} up to version {STUDENT_VERSION}"
            )
        if values.get("data_use") not in (None, *get_args(DataUse)):
            raise ValueError(f"data_use is {values['data_use']!r}")
        return StudentRecord(**values | {"layers": tuple(values["layers"])})
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged: {error!r}") from error
