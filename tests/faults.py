"""The parent's side of fault_run.py: operations, killed before one of their changes and then repeated."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from medalign.teacher_cache.extraction.stage_one import ImageSource
from medalign.teacher_cache.store.checking.verification import verify
from medalign.teacher_cache.store.file_names import MANIFEST_FILE

SOURCE = Path(__file__).with_name("faults.c")
KILLED = 137
IN_PLACE = ("convert", "sign", "sign again")
"""Operations that change small files of a finished store where it lies: in between `verify` names some of them."""
Tree = dict[str, bytes | None]
"""Path below a folder -> content, nothing for a folder."""


def build(folder: Path) -> Path:
    """Compile faults.c."""
    library = folder / "faults.so"
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", library, SOURCE, "-ldl"], check=True)
    return library


def tree(folder: Path) -> Tree:
    """Everything below a folder."""
    found: Tree = {}
    for path in folder.rglob("*"):
        assert not path.is_symlink()
        found[str(path.relative_to(folder))] = path.read_bytes() if path.is_file() else None
    return found


class Change(NamedTuple):
    """One change, in the order of time; "from" gives the old name of the rename after it."""

    what: str
    path: str


@dataclass(frozen=True)
class Quiet:
    """An operation that nothing disturbed."""

    before: Path
    """A folder as it is before it."""
    after: Tree
    changes: "list[Change]"

    @property
    def points(self) -> range:
        """Numbers of the changes."""
        return range(1, 1 + sum(change.what != "from" for change in self.changes))


@dataclass
class Faults:
    """fault_run.py, and the quiet runs of its operations."""

    library: Path
    weights: Path
    images: list[ImageSource]
    scratch: Path
    quiet: dict[str, Quiet] = field(default_factory=dict)
    copies: int = 0

    def __post_init__(self) -> None:
        command = [sys.executable, str(Path(__file__).with_name("fault_run.py"))]
        environment = os.environ | {"LD_PRELOAD": str(self.library)}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.operations: list[str] = json.loads(self._process.stdout.readline())

    def close(self) -> None:
        with self._process:
            self._process.stdin.close()
        assert self._process.returncode == 0

    def run(self, operation: str, folder: Path, **options: Any) -> dict[str, Any]:
        order = {"operation": operation, "folder": str(folder), "prepare": False, "at": 0, "torn": False} | options
        order |= {"weights": str(self.weights), "images": [(str(i.path), i.image_hash) for i in self.images]}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def undisturbed(self, operation: str) -> Quiet:
        """Run once without a fault; every test of an operation needs this."""
        if operation not in self.quiet:
            before = self.scratch / f"{operation} before"
            before.mkdir(exist_ok=True)
            told = self.run(operation, before, prepare=True)
            assert told["code"] == 0, told
            place = self.copy(before)
            told = self.run(operation, place)
            assert told["code"] == 0, told
            changes = [Change(what, key) for what, key in told["changes"]]
            self.quiet[operation] = Quiet(before=before, after=tree(place), changes=changes)
            shutil.rmtree(place)
        return self.quiet[operation]

    def copy(self, before: Path) -> Path:
        self.copies += 1
        return Path(shutil.copytree(before, self.scratch / f"place{self.copies}"))

    def kill(self, operation: str, at: int, *, torn: bool, look: Callable[[Path], object] = lambda store: None) -> None:
        """Kill an operation before a change, look at what there is, and repeat it: all must be as if undisturbed.

        `look` is called in between, with a store that is changed where it lies.
        """
        quiet = self.undisturbed(operation)
        place = self.copy(quiet.before)
        told = self.run(operation, place, at=at, torn=torn)
        assert told["code"] in (0, KILLED), told  # threads may make fewer changes
        if operation not in IN_PLACE:
            check_results(place, quiet)
        else:
            look(place / "s.zarr")
        again = self.run(operation, place)
        found = tree(place)
        if again["code"]:  # what is finished is not written over
            assert "exists" in again["said"][-1], again
        for name in named(found, place, again["said"]):
            del found[name]
        assert found.keys() == quiet.after.keys(), (found.keys() ^ quiet.after.keys(), again)
        assert found == quiet.after
        shutil.rmtree(place)


def named(found: Tree, place: Path, notes: list[str]) -> list[str]:
    """Leftovers that the repeated command told the user of."""
    heads = [name for name in found if any(f"{place / name} is being written" in note for note in notes)]
    return [name for name in found if any(name == head or name.startswith(f"{head}/") for head in heads)]


def check_results(place: Path, quiet: Quiet) -> None:
    """What looks finished right after the kill is whole: a store as it was or as it will be, a packed file."""
    for store in place.glob("*.zarr"):
        if not (store / MANIFEST_FILE).exists():
            continue
        problems = [problem for problem in verify(store).problems if problem.kind != "leftover"]
        if (place / f"{store.name}.extension").exists():  # shards that are not counted yet
            problems = [problem for problem in problems if problem.kind != "stranger"]
        assert not problems or verify(quiet.before / store.name).problems, problems
    for file in place.glob("*.zip"):
        assert file.read_bytes() == quiet.after[file.name]
