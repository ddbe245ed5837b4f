"""Every command that writes stores, killed before each change of the file system: no data loss and no leftovers.

MEDALIGN_FAULTS says how many changes of each operation are tried: 2 by default, 0 for all, which takes some minutes.
"""

import os
import random
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults import Change, Faults, build
from forgeries import root_by_the_page, root_of_version_1
from medalign.atomic import is_temporary
from medalign.teacher_cache.extraction.store_repair import repair
from medalign.teacher_cache.store import open_store
from medalign.teacher_cache.store.checking.verification import verify
from medalign.teacher_cache.store.file_names import MANIFEST_FILE
from medalign.teacher_cache.store.records.zarr_metadata import read_header

POINTS = int(os.environ.get("MEDALIGN_FAULTS", "2"))
OPERATIONS = [
    "extract",
    "finish",
    "extend",
    "extend with failures",
    "extend --retry-failed",
    "extend --retry-failed by nothing",
    "repair small files",
    "repair a shard",
    "merge",
    "subset",
    "push",
    "pull",
    "pack",
    "unpack",
    "convert",
    "sign",
    "sign again",
]

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("cc") is None, reason="faults are injected by a library in C"
)


@pytest.fixture(scope="module")
def faults(phantom_weights, make_images, truncated, tmp_path_factory) -> Iterator[Faults]:
    scratch = tmp_path_factory.mktemp("faults")
    started = Faults(build(scratch), phantom_weights, [*make_images(6), truncated], scratch)
    yield started
    started.close()


def test_the_list_of_operations_is_complete(faults):
    assert faults.operations == OPERATIONS


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_kill_before_a_change(faults, operation):
    points = faults.undisturbed(operation).points
    chosen = random.Random(operation).sample(points, POINTS) if POINTS else points
    for at in chosen:
        faults.kill(operation, at, torn=bool(at % 2))
    print(f"{operation}: {len(chosen)} of {len(points)} changes")


@pytest.mark.parametrize("operation", ["extend --retry-failed by nothing", "convert", "sign again"])
def test_a_kill_around_every_rename(faults, operation):
    """Each command replaces a few files of a finished store; a repair in between reverts nothing."""
    changes = [change.what for change in faults.undisturbed(operation).changes if change.what != "from"]
    renames = [at for at, what in enumerate(changes, 1) if what in ("rename", "unlink")]
    assert len(renames) > 1
    for at in renames:
        faults.kill(operation, at, torn=False, look=LOOKS.get(operation, lambda store: None))


def can_be_read(store: Path) -> None:
    assert len(open_store(store)) == 4


def can_be_repaired(store: Path) -> None:
    """Either format, with the root digest according to docs/store-format.md."""
    assert not repair(store).left
    version = read_header(store).format_version
    root = {1: root_of_version_1, 2: root_by_the_page}[version](store)
    assert verify(store).root_sha256 == root


LOOKS = {"convert": can_be_repaired, "sign again": can_be_read}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_bytes_are_on_disk_before_anything_refers_to_them(faults, operation):
    """Before every rename, the file's bytes are synced; before a record, manifest or folder, all that it refers to."""
    disk = Disk()
    for change in faults.undisturbed(operation).changes:
        disk.see(change)
    assert disk.renames
    assert {path for path in disk.dirty if path} == set(), "not on disk when the command ends"


def is_built(path: str) -> bool:
    """Whether the path is inside a folder that gets its final name when it is complete."""
    return any(is_temporary(part) or part.endswith(".pull.partial") for part in path.split("/"))


class Disk:
    """Files and folder entries that are not synced yet, so a power loss would lose them."""

    def __init__(self) -> None:
        self.dirty: set[str] = set()
        self.renames = 0
        self._source = ""

    def see(self, change: Change) -> None:
        what, path = change
        folder, _, name = path.rpartition("/")
        if what == "from":
            self._source = path
        elif what in ("write", "truncate"):
            self.dirty.add(path)
            assert is_temporary(name) or is_built(path), f"{path} is written in place"
        elif what == "fsync":
            self.dirty.discard(path)
        elif what in ("mkdir", "link") or (what == "create" and not is_temporary(name) and name != ".lock"):
            self.dirty.add(folder)
        elif what == "unlink":
            self.dirty -= {path} | {inside for inside in self.dirty if inside.startswith(f"{path}/")}
        elif what == "rename":
            self._renamed(path, folder, name)

    def _renamed(self, path: str, folder: str, name: str) -> None:
        self.renames += 1
        referenced = {self._source} | {inside for inside in self.dirty if inside.startswith(f"{self._source}/")}
        if name == MANIFEST_FILE and not is_built(folder):
            referenced |= {inside for inside in self.dirty if not folder or f"{inside}/".startswith(f"{folder}/")}
        is_pushed = folder.startswith("there")  # in no order but for the manifest, which comes last
        if folder.endswith("ledger") and name[:-5].isdecimal() and not is_built(folder) and not is_pushed:
            root = folder.removesuffix("ledger")
            referenced |= {inside for inside in self.dirty if inside.startswith((f"{root}E_", f"{root}wide"))}
        assert not self.dirty & referenced, f"{path} gets its name before {sorted(self.dirty & referenced)} are on disk"
        self.dirty.add(folder)
