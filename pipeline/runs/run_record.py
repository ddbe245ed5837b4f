"""Validation of the records in a run's folder: run.json, and the conditions in metrics.json."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from ...saved_records import check_record
from ...student.file_errors import read_object

MOST_THREADS: Final = 1 << 16


class _Record(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="allow", allow_inf_nan=False)


class _Run(_Record):
    """The fields of run.json that are used; the others are only compared."""

    dtype: str | None = None
    lora: str | None = None
    threads: Annotated[int, Field(ge=1, le=MOST_THREADS)] | None = None
    adapter_settings: dict[str, Any] | None = None
    decoding: dict[str, Any] | None = None


class _FileConditions(_Record):
    """The first line of an answer log, and the metadata of a file of attention maps."""

    model_config = ConfigDict(extra="forbid")

    versions: dict[str, str]
    device: str
    lora_kept: Annotated[float, Field(ge=0)] | None


class _JoinedConditions(_Record):
    """The joined conditions of all files of a run."""

    model_config = ConfigDict(extra="forbid")

    versions: dict[str, str]
    devices: list[str]
    lora_kept: Annotated[float, Field(ge=0)] | None


class _Mean(_Record):
    value: float | None
    count: Annotated[int, Field(ge=0)]


class _Reading(_Record):
    open_recall: _Mean | None = None
    closed_accuracy: _Mean | None = None
    choice_accuracy: _Mean | None = None


class _Readings(_Record):
    reference: _Reading
    strict: _Reading


class _Decoding(_Record):
    name: str


class _EvaluatedRun(_Record):
    splits: list[str]
    questions: int
    questions_sha256: str
    decoding: _Decoding


class _Metrics(_Record):
    """The fields of metrics.json that a model card uses."""

    run: _EvaluatedRun
    scores: _Readings


_METRICS: Final = TypeAdapter(_Metrics)
_RUN: Final = TypeAdapter(_Run)
_FILE_CONDITIONS: Final = TypeAdapter(_FileConditions)
_JOINED_CONDITIONS: Final = TypeAdapter(_JoinedConditions)
_ELSEWHERE: Final = "Copy the folder again, or pass another --out"


def read_run(path: Path) -> dict[str, Any]:
    """Read run.json.

    Raises:
        InputError: It cannot be read, or a value has a wrong type.
    """
    return check_run(read_object(path), path)


def check_run(values: dict[str, Any], path: Path) -> dict[str, Any]:
    """Validate the description of a run; `path` is its file.

    Raises:
        InputError: A value has a wrong type.
    """
    check_record(_RUN, values, path, "description of the run", _ELSEWHERE)
    return values


def check_metrics(values: dict[str, Any], path: Path) -> None:
    """Check the fields of metrics.json that a model card uses.

    Raises:
        InputError: A field is missing or has a wrong type.
    """
    check_record(_METRICS, values, path, "scores", "Evaluate again with another --out")


def check_threads(values: Mapping[str, Any], path: Path) -> None:
    """Check the recorded number of threads of a resumed run.

    Raises:
        InputError: It is not a valid number.
    """
    check_record(_RUN, {"threads": values.get("threads")}, path, "number of threads", _ELSEWHERE)


def check_file_conditions(values: dict[str, Any], path: Path, then: str) -> dict[str, Any]:
    """Validate the conditions of the results in one file; empty if they were not recorded.

    `then` says what to do if they are damaged.

    Raises:
        InputError: They are not in the format that medalign writes.
    """
    if values:
        check_record(_FILE_CONDITIONS, values, path, "conditions", then)
    return values


def check_joined_conditions(values: Any, path: Path) -> dict[str, Any]:
    """The same for a whole run, from its metrics.json.

    Raises:
        InputError: They are not in the format that medalign writes.
    """
    if values != {}:
        check_record(_JOINED_CONDITIONS, values, path, "conditions", _ELSEWHERE)
    return dict(values)
