"""All that writes stores, killed before any change of the file system: nothing is lost, and nothing is left over.

MEDALIGN_FAULTS says how many changes of each operation are tried: 2 by default, 0 for all, which takes some minutes.
"""

import os
import random
import shutil
import sys
from collections.abc import Iterator

import pytest
from faults import Faults, build
from medalign.atomic import is_temporary

POINTS = int(os.environ.get("MEDALIGN_FAULTS", "2"))
OPERATIONS = [
    "extract",
    "finish",
    "extend",
    "extend with failures",
    "extend --retry-failed",
    "repair small files",
    "repair a shard",
    "merge",
    "subset",
    "push",
    "pull",
    "pack",
    "unpack",
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


def test_the_list_of_operations_is_whole(faults):
    assert faults.operations == OPERATIONS


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_kill_before_a_change(faults, operation):
    changes = len(faults.undisturbed(operation).changes)
    points = range(1, changes + 1)
    draw = random.Random(operation)
    for at in points if POINTS == 0 else draw.sample(points, POINTS):
        faults.kill(operation, at, torn=bool(at % 2))
    print(f"{operation}: {POINTS or changes} of {changes} changes")


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_file_is_on_disk_before_it_gets_its_name(faults, operation):
    """Its bytes before the rename, the rename before anything that tells of it: records, the manifest, the marker."""
    changes = faults.undisturbed(operation).changes
    for position, (what, key) in enumerate(changes):
        if what != "rename":
            continue
        before = [c for c in changes[:position] if c[1] != key and is_temporary(c[1].rpartition("/")[2])]
        assert before
        folder = key.rpartition("/")[0]
        later = changes[position + 1 :]
        synced = next((n for n, change in enumerate(later) if change == ("fsync", folder)), None)
        if folder:
            assert synced is not None, f"{key}: its folder is never synced"


@pytest.mark.parametrize("operation", OPERATIONS)
def test_nothing_is_written_in_place(faults, operation):
    """Bytes arrive in temporary files alone, each is synced after its last byte, and the manifest's rename is the last."""
    changes = faults.undisturbed(operation).changes
    last_write = {key: n for n, (what, key) in enumerate(changes) if what in ("write", "truncate")}
    for key, position in last_write.items():
        parts = key.split("/")
        assert any(is_temporary(part) or part.endswith(".pull.partial") for part in parts), f"{key} is written in place"
        assert is_temporary(parts[-1]), f"{key} is written in place"
        synced = [n for n, change in enumerate(changes) if change == ("fsync", key)]
        assert synced and synced[-1] > position, f"{key} is not synced after its last byte"
