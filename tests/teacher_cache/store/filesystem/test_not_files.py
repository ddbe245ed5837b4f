"""A folder, pipe or huge file in the place of a store's file is reported as such, not as missing; the advice helps."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from harms import contents
from medalign.errors import StoreError
from medalign.pipeline.stores.verify import describe_store
from medalign.progress import Silent
from medalign.teacher_cache.extraction.stage_one import finish
from medalign.teacher_cache.extraction.store_repair import repair
from medalign.teacher_cache.sharing.pack import pack
from medalign.teacher_cache.sharing.pull import pull
from medalign.teacher_cache.sharing.push import push
from medalign.teacher_cache.store import open_store
from medalign.teacher_cache.store.access.store_files import LocalFiles
from medalign.teacher_cache.store.checking import partial_view as view_module
from medalign.teacher_cache.store.checking.signing import sign
from medalign.teacher_cache.store.checking.verification import verify
from medalign.teacher_cache.store.filesystem.plain_files import open_plain
from medalign.teacher_cache.store.signatures.signing_keys import SigningKey
from medalign.teacher_cache.store.store_errors import NotAFile
from stores import name_of, write_store

QUIET = Silent()
SMALL = [
    "zarr.json",
    "E_v/zarr.json",
    "ledger/000001.json",
    "ledger/unreadable.json",
    "index.parquet",
    "failures.parquet",
    "README.md",
    "signature.json",
    "manifest-sha256.txt",
]
SHARD = "E_v/c/1/0/0"
COMMANDS: dict[str, Callable[[Path, Path], object]] = {
    "open": lambda store, out: open_store(store).read([name_of(4)]),
    "info": lambda store, out: describe_store(str(store)),
    "verify": lambda store, out: verify(store),
    "repair": lambda store, out: repair(store),
    "finish": lambda store, out: finish(store),
    "pull": lambda store, out: pull(str(store), out, progress=QUIET),
    "push": lambda store, out: push(store, str(out), allow=None, progress=QUIET),
    "pack": lambda store, out: pack(store, out, allow=None, progress=QUIET),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    store = write_store(tmp_path_factory.mktemp("whole") / "s.zarr", range(6), unreadable=["a pipe"])
    sign(store, SigningKey(Ed25519PrivateKey.from_private_bytes(bytes(32))))
    return store


@pytest.fixture
def store(whole, memory_path) -> Path:
    return Path(shutil.copytree(whole, memory_path / "s.zarr"))


@pytest.mark.parametrize(("kind", "put"), [("a folder", Path.mkdir), ("a pipe", os.mkfifo)])
def test_every_command_reports_special_files_as_such(store, memory_path, kind, put):
    """Following the advice gives an intact store."""
    original = contents(store)
    for key in [*SMALL, SHARD]:
        (store / key).unlink()
        put(store / key)
        commands = COMMANDS if key in ("zarr.json", "manifest-sha256.txt", SHARD) else {"verify": COMMANDS["verify"]}
        for name, run in commands.items():
            if key == SHARD and kind == "a folder" and name in ("info", "repair", "finish"):
                continue  # they do not open shards, recompute this one, or count it as missing
            with pytest.raises(StoreError) as caught:
                run(store, memory_path / f"out of {name}, {key.replace('/', ' ')}")
            assert f"{store / key} is {kind}, but a store has only regular files there: move it away" in str(
                caught.value
            )
        (store / key).rename(memory_path / "away")
        if key != SHARD and kind == "a folder":
            repair(store)
            assert verify(store).ok, key
        (memory_path / "away").rmdir() if kind == "a folder" else (memory_path / "away").unlink()
        for name, data in original.items():
            (store / name).write_bytes(data)


def test_oversized_files_are_reported_as_such_and_repaired(store, monkeypatch):
    """The limit is lowered so that the test writes little."""
    original = contents(store)
    monkeypatch.setattr(view_module, "MOST_WHOLE", 20_000)
    monkeypatch.setattr("medalign.teacher_cache.store.access.store_files.MOST_WHOLE", 20_000)
    for key in SMALL:
        if key.endswith((".parquet", "E_v/zarr.json", "unreadable.json")):
            continue
        with (store / key).open("r+b") as file:
            file.truncate(100_000)
        report = verify(store, quick=True)
        messages = [problem.what for problem in report.problems if problem.key == key]
        assert "has 100000 bytes, but at most 20000 are allowed" in messages, key
        assert "is missing" not in messages, key
        assert report.finished
        assert not repair(store).left
        assert verify(store, quick=True).ok
        for name, data in original.items():
            (store / name).write_bytes(data)


def test_a_folder_in_place_of_a_shard_is_reported_as_such(store):
    (store / SHARD).unlink()
    (store / SHARD).mkdir()
    with pytest.raises(StoreError, match=rf"{SHARD} is a folder"):
        LocalFiles(store).size(SHARD)
    with pytest.raises(StoreError, match=rf"{SHARD} is a folder"):
        LocalFiles(store).exists(SHARD)
    with pytest.raises(StoreError, match=rf"{SHARD} is a folder"):
        verify(store, quick=True)


def test_a_link_that_appears_after_a_check_is_not_followed(tmp_path):
    (tmp_path / "secret").write_text("x")
    (tmp_path / "zarr.json").symlink_to(tmp_path / "secret")
    with pytest.raises(NotAFile, match=r"zarr\.json is a .*link"):
        open_plain(tmp_path / "zarr.json")
