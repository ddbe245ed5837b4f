"""`comparison.json` records what determines a comparison's answers, so that a folder never mixes two comparisons."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ....atomic import is_temporary
from ....errors import InputError
from ....plain_text import as_typed
from ....student.file_errors import is_file, read_object, writing
from ...runs.answer_log import claim_file
from ...runs.run_differences import differences, differing_keys, method_changed
from ...runs.run_record import check_threads

COMPARISON_FILE = "comparison.json"
COMPARISON_FORMAT = "medalign-comparison"
COMPARISON_VERSION = 1


def claim(out: Path, identity: Mapping[str, Any], *, resume: bool, adopt: Sequence[str] = ()) -> dict[str, Any]:
    """Claim a folder for a comparison, or find that it already contains it. Concurrent claims: one succeeds.

    Args:
        out: The folder.
        identity: What determines the answers.
        resume: Whether the folder may already contain this comparison.
        adopt: Keys whose values are taken from the existing comparison.

    Returns:
        The identity, with the adopted values.

    Raises:
        InputError: The folder is in use and `resume` is off, or contains something else; differences from another
            comparison are listed with both values, and what to restore.
    """
    path = out / COMPARISON_FILE
    if not is_file(path):
        if out.is_file() or (out.is_dir() and not all(is_temporary(entry.name) for entry in out.iterdir())):
            raise InputError(f"{out} exists and is not a comparison: pass another --out")
        values = {"format": COMPARISON_FORMAT, "version": COMPARISON_VERSION, "answers": dict(identity)}
        with writing(out):
            out.mkdir(parents=True, exist_ok=True)
        if claim_file(path, json.dumps(values, indent=2) + "\n"):
            return dict(identity)
    if not resume:
        raise InputError(
            f"{out} already contains a comparison: pass --resume to continue it, --reanalyze to score its saved "
            "answers again, or another --out"
        )
    before = _recorded(path)
    now = {key: value for key, value in identity.items() if key not in adopt}
    now |= {key: before[key] for key in adopt if key in before}
    _check_same(path, before, now, now.keys() | before.keys())
    return now


def check_saved(out: Path, identity: Mapping[str, Any]) -> dict[str, Any]:
    """Check that saved answers have the questions and decodings of this specification.

    The students need not exist, and the version of medalign may differ.

    Returns:
        What determined the saved answers, including students.

    Raises:
        InputError: There is no comparison, or it has other answers; differences are listed with both values.
    """
    path = out / COMPARISON_FILE
    if not is_file(path):
        raise InputError(
            f"{out} has no comparison: create one with `medalign student compare SPEC.yaml --out {as_typed(out)}`"
        )
    before = _recorded(path)
    _check_same(path, before, identity, identity.keys() - {"medalign"})
    return before


def _recorded(path: Path) -> dict[str, Any]:
    values = read_object(path)
    if values.get("format") != COMPARISON_FORMAT or values.get("version") != COMPARISON_VERSION:
        raise InputError(
            f"{path} has format {values.get('format')!r} version {values.get('version')}; this medalign reads "
            f"{COMPARISON_FORMAT!r} version {COMPARISON_VERSION}"
        )
    answers = values.get("answers")
    if not isinstance(answers, dict):
        raise InputError(f"{path} is damaged: answers is {answers!r}, not an object")
    check_threads(answers, path)
    return answers


def _check_same(path: Path, before: Mapping[str, Any], now: Mapping[str, Any], keys: set[str]) -> None:
    now = json.loads(json.dumps({key: now[key] for key in keys if key in now}))  # as it will be read
    before = {key: before[key] for key in keys if key in before}
    if listed := differences(before, now):
        lines = "".join(f"\n  {line}" for line in listed)
        raise InputError(
            f"{path} belongs to a comparison with different answers:{lines}\n"
            f"Restore {_what(listed, differing_keys(before, now))}, or start a new comparison with another --out."
        )


def _what(listed: Sequence[str], keys: Sequence[str]) -> str:
    """What to restore, in words."""
    found = dict.fromkeys(_source(key) for key in keys if any(_is_value(line, key) for line in listed))
    return " and ".join([*(["the file of the decoding method"] if method_changed(listed) else []), *found])


def _is_value(line: str, key: str) -> bool:
    """Whether a difference is a value of this key, not the source of a method."""
    return line.startswith(key) and not method_changed([line])


def _source(key: str) -> str:
    """Where a value of the identity comes from."""
    if key == "medalign":
        return "the recorded version of medalign"
    if key.startswith("students."):
        return "the students and adapters (or their settings in the comparison file)"
    if key.startswith("data.") and not key.endswith(".max_new_tokens"):
        return "the manifest (or the choice of its questions in the comparison file)"
    return "these settings in the comparison file"
