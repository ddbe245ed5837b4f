"""Names as long as file systems allow: names of temporary files stay within the limit and are distinct."""

import os
import shutil
from pathlib import Path

import pytest
from medalign.atomic import beside, temporary_path
from medalign.progress import Silent
from medalign.teacher_cache.extraction.extension import extend
from medalign.teacher_cache.sharing.pack import pack
from medalign.teacher_cache.sharing.pull import pull
from medalign.teacher_cache.sharing.subset import Wanted, subset
from medalign.teacher_cache.sharing.unpack import unpack
from medalign.teacher_cache.store import open_store
from medalign.teacher_cache.store.checking.verification import verify
from stores import name_of, write_store

QUIET = Silent()
NAMES = [  # 245, 255, 254 and 255 bytes
    "x" * 245,
    "x" * 255,
    "\u00e9" * 127,
    "\u533b" * 85,
]


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return write_store(tmp_path_factory.mktemp("store") / "s.zarr", range(3))


@pytest.mark.parametrize("name", NAMES, ids=["245 x", "255 x", "127 é", "85 医"])
def test_stores_work_with_the_longest_names(store, tmp_path, name):
    (tmp_path / "zip").mkdir()
    pull(str(store), tmp_path / name, progress=QUIET)
    assert verify(tmp_path / name).ok
    packed = tmp_path / "zip" / name
    pack(tmp_path / name, packed, allow=None, progress=QUIET)
    shutil.rmtree(tmp_path / name)
    unpack(packed, tmp_path / name, progress=QUIET)
    shutil.rmtree(tmp_path / name)
    subset(str(store), tmp_path / name, [Wanted(image_hash=name_of(1))], progress=QUIET)
    assert len(open_store(tmp_path / name)) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, "zip"])


def test_a_store_with_the_longest_name_can_be_extended(finished, teacher, make_images, tmp_path):
    store = Path(shutil.copytree(finished, tmp_path / ("x" * 255)))
    extend(teacher, make_images(9), store)
    assert len(open_store(store)) == 9
    assert [path.name for path in tmp_path.iterdir()] == [store.name]


def test_short_names_are_kept_and_long_ones_stay_distinct(tmp_path):
    assert beside(tmp_path / "s.zarr", ".", ".pull.partial").name == ".s.zarr.pull.partial"
    names = [f"{'x' * 250}{number}" for number in range(5)] + ["x" * 241, "\udcff" * 250]
    made = {beside(tmp_path / name, ".", ".pull.partial").name for name in names}
    assert len(made) == len(names)
    assert all(len(os.fsencode(name)) <= 255 for name in made)
    assert all(len(os.fsencode(temporary_path(tmp_path / name).name)) <= 255 for name in names)
    for name in ("\u00e9" * 127, "\u533b" * 85):
        beside(tmp_path / name, ".", ".pull.partial").name.encode()  # no character is cut in two
