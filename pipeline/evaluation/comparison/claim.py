"""A comparison's folder says what decides its answers (`comparison.json`), so that it never mixes two comparisons."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ....atomic import is_temporary
from ....errors import InputError
from ....student.file_errors import is_file, read_object, writing
from ...runs.answer_log import claim_file
from ...runs.run_record import check_threads

COMPARISON_FILE = "comparison.json"
COMPARISON_FORMAT = "medalign-comparison"
COMPARISON_VERSION = 1


def claim(out: Path, identity: Mapping[str, Any], *, resume: bool, adopt: Sequence[str] = ()) -> dict[str, Any]:
    """Take a folder for a comparison, or find that it holds this very one. Of several that claim it at once one wins.

    Args:
        out: the folder.
        identity: what decides the answers.
        resume: whether the folder may hold this comparison.
        adopt: keys whose value is that of the comparison that is there.

    Returns:
        The identity, with the adopted values.

    Raises:
        InputError: the folder is in use and `resume` is off, or holds something else; of a comparison with other
            answers what differs is listed with both values.
    """
    path = out / COMPARISON_FILE
    if not is_file(path):
        if out.is_file() or (out.is_dir() and not all(is_temporary(entry.name) for entry in out.iterdir())):
            raise InputError(f"{out} exists and is no comparison: give another --out")
        values = {"format": COMPARISON_FORMAT, "version": COMPARISON_VERSION, "answers": dict(identity)}
        with writing(out):
            out.mkdir(parents=True, exist_ok=True)
        if claim_file(path, json.dumps(values, indent=2) + "\n"):
            return dict(identity)
    if not resume:
        raise InputError(
            f"{out} holds a comparison already: --resume answers what is missing, --reanalyse scores its saved answers "
            "again, or give another --out"
        )
    before = _recorded(path)
    now = {key: value for key, value in identity.items() if key not in adopt}
    now |= {key: before[key] for key in adopt if key in before}
    _check_same(path, before, now, now.keys() | before.keys())
    return now


def check_saved(out: Path, identity: Mapping[str, Any]) -> dict[str, Any]:
    """Check that saved answers are to the questions, with the decodings, that are asked for now.

    Students and the version of medalign may have gone.

    Returns:
        What decided the answers when they were given, students included.

    Raises:
        InputError: there is no comparison, or its answers are others; what differs is listed with both values.
    """
    path = out / COMPARISON_FILE
    if not is_file(path):
        raise InputError(f"{out} holds no comparison: `medalign student compare SPEC.yaml --out {out}` makes one")
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
    now = json.loads(json.dumps(dict(now)))  # as it would be read back
    changed = [key for key in sorted(keys) if before.get(key) != now.get(key)]
    if changed:
        lines = "\n".join(f"  {key}: {_text(before, key)} before, {_text(now, key)} now" for key in changed)
        raise InputError(
            f"{path} is of a comparison with other answers:\n{lines}\nSet them back, or start a new comparison with "
            "another --out."
        )


def _text(values: Mapping[str, Any], key: str) -> str:
    return json.dumps(values[key]) if key in values else "not there"
