"""`inputs.json`: where the questions and images of a run are, for pages that are made from its results.

Paths determine no result, so they are not in `run.json` and not compared when a run is resumed.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, TypeAdapter

from ...saved_records import check_record
from ...student.file_errors import is_file, read_object
from .answer_log import write_whole

INPUTS_FILE: Final = "inputs.json"
FORMAT: Final = "medalign-inputs"
VERSION: Final = 1
_REMEDY: Final = "Delete it and pass the manifest to `medalign report make` with --manifest"


@dataclass(frozen=True, kw_only=True, slots=True)
class RunInputs:
    """The paths of a run's inputs; absolute where they are saved."""

    manifest: Path
    root: Path | None = None
    """Folder that image paths are relative to; `None`: the one in the manifest."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow")

    format: str
    version: int
    manifest: str
    root: str | None = None


_RECORD: Final = TypeAdapter(_Record)


def write_inputs(out: Path, inputs: RunInputs) -> None:
    """Write the record to a run's folder, with absolute paths.

    Raises:
        MedalignError: The file cannot be written.
    """
    values = {
        "format": FORMAT,
        "version": VERSION,
        "manifest": str(inputs.manifest.absolute()),
        "root": None if inputs.root is None else str(inputs.root.absolute()),
    }
    write_whole(out / INPUTS_FILE, json.dumps(values, indent=2) + "\n")


def read_inputs(out: Path) -> RunInputs | None:
    """The record of a run's folder; `None` if it has none, as runs of earlier versions.

    Raises:
        InputError: It is damaged.
    """
    path = out / INPUTS_FILE
    if not is_file(path):
        return None
    record = check_record(_RECORD, read_object(path), path, "record of the inputs", _REMEDY)
    return RunInputs(manifest=Path(record.manifest), root=None if record.root is None else Path(record.root))
