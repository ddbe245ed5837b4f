"""What must agree exists once: writing a file, the digest of a file, the choices of an option, a "did you mean"."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("api", "commands", "pipeline", "student", "teacher_cache")

WRITING_CALLS = {"write_text", "write_bytes", "fsync", "rename", "replace", "renames", "NamedTemporaryFile", "mkstemp"}
WRITERS = {
    "atomic.py": "this is the one",
    "teacher_cache/extraction/extension.py": "renames the folder of a merged extension",
    "teacher_cache/sharing/pull.py": "renames the folder of a pull, which is resumed and so has a fixed name",
    "teacher_cache/store/writing/adoption.py": "renames a hard link to a shard that is on disk already",
}
"""Modules that write, rename or sync files themselves, and why."""
READERS = {
    "digests.py": "this is the one",
    "teacher_cache/sharing/listed_files.py": "yields the blocks to their reader while it computes their digest",
}
"""Modules with a loop that reads blocks into a digest, and why."""


@cache
def trees() -> dict[str, ast.Module]:
    paths = [*ROOT.glob("*.py"), *(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))]
    return {str(path.relative_to(ROOT)): ast.parse(path.read_text()) for path in sorted(paths)}


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            yield name, node


def writes(name: str, call: ast.Call) -> bool:
    """Whether a call creates, changes, renames or syncs a file."""
    if name in ("open", "fdopen"):
        modes = [*call.args, *(keyword.value for keyword in call.keywords if keyword.arg == "mode")]
        texts = [mode.value for mode in modes if isinstance(mode, ast.Constant) and isinstance(mode.value, str)]
        is_member = any(keyword.arg == "force_zip64" for keyword in call.keywords)
        return not is_member and any(set(text) <= set("rwaxbt+") and set(text) & set("wax+") for text in texts)
    if name == "replace":  # of a path: texts replace one argument by another, records their fields
        is_text = len(call.args) != 1 or isinstance(call.args[0], ast.Starred)
        return not is_text and not call.keywords and isinstance(call.func, ast.Attribute)
    if name == "rename":  # of a data frame: its columns, in a dictionary
        return not any(isinstance(argument, ast.Dict) for argument in call.args)
    of_base = isinstance(call.func, ast.Attribute) and ast.unparse(call.func.value) == "super()"  # a help formatter's
    return name in WRITING_CALLS and not of_base


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_every_exception_for_writing_is_needed(name):
    assert any(writes(*call) for call in calls(trees()[name]))


def test_files_are_written_by_one_module():
    """It checks for pipes and devices, writes under a temporary name, syncs the file and its folder, and cleans up."""
    found = {
        f"{name}:{call.lineno} {function}"
        for name, tree in trees().items()
        for function, call in calls(tree)
        if name not in WRITERS and writes(function, call)
    }
    assert found == set()


def hashes_blocks(tree: ast.AST) -> bool:
    """Whether a loop reads blocks and adds them to a digest."""
    loops = (node for node in ast.walk(tree) if isinstance(node, ast.While))
    return any({"read", "update"} <= {name for name, _ in calls(loop)} for loop in loops)


def test_files_are_hashed_by_one_function():
    assert {name for name, tree in trees().items() if hashes_blocks(tree)} == READERS.keys()
    functions = {ast.unparse(call.func) for tree in trees().values() for _, call in calls(tree)}
    assert "hashlib.file_digest" not in functions


def literals(tree: ast.AST) -> Iterator[tuple[int, frozenset[str]]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and getattr(node.value, "id", "") == "Literal":
            items = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
            values = frozenset(item.value for item in items if isinstance(item, ast.Constant))
            if len(values) > 1:
                yield node.lineno, values


def enumerations(tree: ast.AST) -> Iterator[tuple[int, frozenset[str]]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and any(getattr(base, "id", "").endswith("Enum") for base in node.bases):
            values = (item.value for item in node.body if isinstance(item, ast.Assign))
            yield node.lineno, frozenset(value.value for value in values if isinstance(value, ast.Constant))


def test_every_set_of_choices_stands_once():
    places = defaultdict(list)
    for name, tree in trees().items():
        for line, values in (*literals(tree), *enumerations(tree)):
            places[values].append(f"{name}:{line}")
    assert len(places) > 20
    assert {values: where for values, where in places.items() if len(where) > 1} == {}


def test_names_are_suggested_by_one_module():
    assert {name for name, tree in trees().items() if any(f == "get_close_matches" for f, _ in calls(tree))} == {
        "suggestions.py"
    }


def test_kinds_of_files_are_named_in_one_module():
    named = {
        name for name, tree in trees().items() for node in ast.walk(tree) if getattr(node, "attr", "") == "S_IFIFO"
    }
    assert named == {"file_kinds.py"}
