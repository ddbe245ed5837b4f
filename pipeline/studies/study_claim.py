"""study.json: which specification a folder belongs to; and test-lock.json: when the test questions were read."""

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, TypeAdapter

from ...atomic import is_temporary, write_new, write_whole
from ...errors import InputError
from ...plain_text import counted
from ...saved_records import check_record
from ...student.file_errors import is_file, read_object, writing
from ..evaluation.batches.environment import code_versions
from ..runs.answer_log import claim_file
from .study_spec import StudySpec
from .units.unit_folder import finished_tests

STUDY_FILE: Final = "study.json"
LOCK_FILE: Final = "test-lock.json"
FORMAT: Final = "medalign-study"
VERSION: Final = 1
_AGAIN: Final = "Copy the complete folder again, or pass another --out"


class _Study(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    format: str
    version: int
    spec_sha256: str
    spec: dict[str, Any]
    earlier: list[dict[str, str]]


class TestLock(BaseModel):
    """When the test questions were read, and by what."""

    __test__ = False
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    spec_sha256: str
    units_sha256: str
    """Digest of the digests of all units with test answers: settings, data, bases and stores."""
    read_at: str
    """Time in UTC, ISO 8601."""
    versions: dict[str, str]


_STUDY: Final = TypeAdapter(_Study)
_LOCK: Final = TypeAdapter(TestLock)


def digest_spec(spec: StudySpec) -> str:
    """SHA-256 of a specification as it is understood: comments and the order of keys do not matter."""
    return hashlib.sha256(json.dumps(spec.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()


def claim_study(out: Path, spec: StudySpec) -> str | None:
    """Claim a folder for a study, or continue in it; return the digest of the specification that it replaces, if any.

    Until the test questions are read, a specification may change: units that it shares with the earlier one are kept.

    Raises:
        InputError: The folder contains something else, or its test questions were read with another specification.
    """
    path, digest = out / STUDY_FILE, digest_spec(spec)
    before = _read_study(path) or _create(out, spec)
    if before is None or before.spec_sha256 == digest:
        return None
    check_lock(out, spec)
    earlier = [*before.earlier, {"spec_sha256": before.spec_sha256, "until": now()}]
    with writing(path):
        write_whole(path, _text(spec, earlier))
    return before.spec_sha256


def _create(out: Path, spec: StudySpec) -> _Study | None:
    """Claim a new folder; return the study of another process if that was faster."""
    path = out / STUDY_FILE
    if out.exists() and (not out.is_dir() or not all(is_temporary(entry.name) for entry in out.iterdir())):
        if (found := _read_study(path)) is not None:
            return found
        what = f"is not empty and has no study ({STUDY_FILE})" if out.is_dir() else "is a file"
        raise InputError(f"{out} {what}: pass another --out")
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    return None if claim_file(path, _text(spec, [])) else _read_study(path)


def _text(spec: StudySpec, earlier: list[dict[str, str]]) -> str:
    record = _Study(
        format=FORMAT,
        version=VERSION,
        spec_sha256=digest_spec(spec),
        spec=spec.model_dump(mode="json"),
        earlier=earlier,
    )
    return json.dumps(record.model_dump(), indent=2) + "\n"


def check_claim(out: Path, digest: str) -> None:
    """Check that a folder still belongs to a specification.

    Raises:
        InputError: Another process changed it.
    """
    study = _read_study(out / STUDY_FILE)
    if study is None or study.spec_sha256 != digest:
        now_is = "no study" if study is None else f"the specification {study.spec_sha256[:16]}"
        raise InputError(
            f"{out} has {now_is} now, but this process works on {digest[:16]}: another process started the study with "
            "another specification. Run the command again with the one that you want"
        )


def read_lock(out: Path) -> TestLock | None:
    """The record of the reading of the test questions; None if they were not read.

    Raises:
        InputError: It is damaged.
    """
    path = out / LOCK_FILE
    return check_record(_LOCK, read_object(path), path, "test lock", _AGAIN) if is_file(path) else None


def check_lock(out: Path, spec: StudySpec) -> TestLock | None:
    """The test lock, which must be of this specification; None if the test questions were not read.

    Raises:
        InputError: They were read with another specification.
    """
    lock, digest = read_lock(out), digest_spec(spec)
    if lock is not None and lock.spec_sha256 != digest:
        raise InputError(
            f"the test questions of {out} were read on {lock.read_at} with the specification {lock.spec_sha256}, but "
            f"this one is {digest}: a study reads them once. Restore the specification (it is in {out / STUDY_FILE}), "
            "or start a new study with another --out and other test questions"
        )
    return lock


def take_lock(out: Path, spec: StudySpec, units: list[str]) -> TestLock:
    """Lock a study before its test questions are read; return the lock, which may be of an earlier start.

    Raises:
        InputError: They were read with another specification, or with other data, bases or stores.
    """
    lock = check_lock(out, spec)
    if lock is None:
        lock = TestLock(
            spec_sha256=digest_spec(spec), units_sha256=_digest(units), read_at=now(), versions=dict(code_versions())
        )
        path = out / LOCK_FILE
        try:
            with writing(path):
                write_new(path, (json.dumps(lock.model_dump(), indent=2) + "\n").encode())
        except FileExistsError:  # another process of the same study was faster
            lock = check_lock(out, spec)
            assert lock is not None
    check_test_units(out, lock, units)
    return lock


def check_test_units(out: Path, lock: TestLock, units: list[str]) -> None:
    """Check that a test that was read would be the same now; `units` are the digests of its answers.

    Raises:
        InputError: Data, bases, stores or the choices of trials are others.
    """
    if lock.units_sha256 != (digest := _digest(units)):
        raise InputError(
            f"the test questions of {out} were read on {lock.read_at} for the units {lock.units_sha256}, but now they "
            f"are {digest}: a base, a store, questions or images have changed since, or trials.json. Restore "
            "them; a study reads its test questions once"
        )


def check_not_tested(out: Path) -> None:
    """Check that a folder without a test lock has no answers to test questions.

    Raises:
        InputError: It has.
    """
    if found := finished_tests(out):
        raise InputError(
            f"{out / LOCK_FILE} is missing, but {counted(len(found), 'unit')} answered test questions, such as "
            f"{found[0].parent}: restore the lock, or start a new study with another --out and other test questions"
        )


def _digest(units: list[str]) -> str:
    return hashlib.sha256("\n".join(units).encode()).hexdigest()


def now() -> str:
    """The time in UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _read_study(path: Path) -> _Study | None:
    return check_record(_STUDY, read_object(path), path, "study", _AGAIN) if is_file(path) else None
