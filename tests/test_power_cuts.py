"""Durable writes: a name is given only to what is on disk, and is on disk itself before anything relies on it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from forgeries import version_1_store
from medalign.atomic import new_folder, write_whole
from medalign.pipeline.runs.answer_log import AnswerLog, LoggedAnswer, claim_file
from medalign.progress import Silent
from medalign.student.training.checkpoints import mark_whole
from medalign.teacher_cache.sharing.pack import pack
from medalign.teacher_cache.sharing.pull import pull
from medalign.teacher_cache.sharing.unpack import unpack
from medalign.teacher_cache.store import open_store
from medalign.teacher_cache.store.checking.format_conversion import convert
from medalign.teacher_cache.store.checking.signing import sign
from medalign.teacher_cache.store.filesystem.durable_files import make_folders
from medalign.teacher_cache.store.filesystem.locks import RunLock
from medalign.teacher_cache.store.format.keyed_hashes import make_key
from medalign.teacher_cache.store.signatures.signing_keys import SigningKey
from medalign.teacher_cache.store.writing.adoption import adopt
from medalign.teacher_cache.store.writing.row_copies import About, RowsOf, copy_rows
from medalign.teacher_cache.store.writing.writer import StoreWriter
from power_cuts import Disk
from stores import name_of, write_store

QUIET = Silent()
KEY = SigningKey(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))


def nothing(root: Path) -> None:
    """The folder is empty at first."""


def store(root: Path) -> None:
    write_store(root / "s.zarr", range(5))


def store_without_a_file(root: Path) -> None:
    store(root)
    (root / "s.zarr" / "E_a" / "c" / "1" / "0").unlink()


def write_a_store_with_a_wide_shard(root: Path) -> None:
    write_store(
        root / "s.zarr", range(10), wide={1: "float32"}, failing=[9], unreadable=["no image"], data_use="private"
    )


def prepare_a_missing_shard(root: Path) -> None:
    """The manifest goes before the record, so that no reader takes the store for finished."""
    with RunLock(root / "s.zarr"):
        assert StoreWriter(root / "s.zarr").pending() == [1]


def extend(root: Path) -> None:
    side = write_store(root / "side.zarr", range(5, 8), unreadable=["no image"])
    with RunLock(root / "s.zarr"):
        adopt(root / "s.zarr", list(map(name_of, range(5))), side, list(map(name_of, range(5, 8))))


def extend_a_signed_store(root: Path) -> None:
    sign(root / "s.zarr", KEY)
    extend(root)


def copy(root: Path) -> None:
    opened = open_store(root / "s.zarr")
    copy_rows([RowsOf(store=opened, positions=[3, 0])], [], root / "copy.zarr", About(data_use="public"))


def pack_and_unpack(root: Path) -> None:
    pack(root / "s.zarr", root / "s.zip", allow=None, progress=QUIET)
    unpack(root / "s.zip", root / "t.zarr", progress=QUIET)


def answer(root: Path) -> None:
    log = AnswerLog(root, ["a", "b"], batch_size=1)
    for number, question in enumerate("ab"):
        log.append(number, [LoggedAnswer(question_id=question, prediction="yes", seconds=1.0, forwards=1)])
        assert (root / "answers.jsonl").read_text().count("prediction") == number + 1


def nested_folder(root: Path) -> None:
    with new_folder(root / "out") as folder:
        (folder / "a" / "b").mkdir(parents=True)
        for name in ("x", "a/x", "a/b/x"):
            (folder / name).write_text(name)


@pytest.mark.parametrize(
    ("before", "write"),
    [
        pytest.param(nothing, lambda root: write_whole(root / "x", "new"), id="file"),
        pytest.param(nothing, nested_folder, id="folder"),
        pytest.param(nothing, lambda root: make_folders(root / "a" / "b" / "c"), id="folders"),
        pytest.param(nothing, write_a_store_with_a_wide_shard, id="store"),
        pytest.param(store_without_a_file, prepare_a_missing_shard, id="pending"),
        pytest.param(store, extend, id="extend"),
        pytest.param(store, extend_a_signed_store, id="extend-signed"),
        pytest.param(store, lambda root: sign(root / "s.zarr", KEY), id="sign"),
        pytest.param(
            lambda root: version_1_store(root / "s.zarr"), lambda root: convert(root / "s.zarr"), id="convert"
        ),
        pytest.param(store, copy, id="copy"),
        pytest.param(store, pack_and_unpack, id="zip"),
        pytest.param(store, lambda root: pull(str(root / "s.zarr"), root / "t.zarr", progress=QUIET), id="pull"),
        pytest.param(nothing, lambda root: make_key(root / "key"), id="key"),
        pytest.param(nothing, lambda root: claim_file(root / "x", "mine"), id="claim"),
        pytest.param(nothing, answer, id="answers"),
    ],
)
def test_nothing_is_lost_and_no_name_comes_first(before: Callable, write: Callable, tmp_path, monkeypatch):
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    before(tmp_path)
    disk = Disk(tmp_path, monkeypatch, ignored=(".lock", ".t.zarr.pull.partial"))
    write(tmp_path)
    assert disk.wrong == []
    assert disk.lost() == []
    assert [path for path in tmp_path.iterdir() if not path.name.startswith(".")]


def test_the_marker_of_a_checkpoint_comes_after_its_files(tmp_path, monkeypatch):
    disk = Disk(tmp_path, monkeypatch)
    checkpoint = tmp_path / "checkpoint-8"
    for name in ("adapter.safetensors", "state/optimizer.pt"):
        (checkpoint / name).parent.mkdir(parents=True, exist_ok=True)
        (checkpoint / name).write_text(name)
    mark_whole(checkpoint)
    assert disk.wrong == []
    assert disk.lost() == []


def test_lost_names_and_contents_are_seen(tmp_path, monkeypatch):
    """The recording itself: what is not flushed is lost, and a name that comes too early is reported."""
    (tmp_path / "old").write_text("1")
    disk = Disk(tmp_path, monkeypatch)
    assert disk.lost() == []
    (tmp_path / "old").write_text("2")
    assert disk.lost() == ["old"]
    (tmp_path / "old").rename(tmp_path / "new")
    assert disk.wrong == ["old before new", "old before new"]
    assert disk.lost() == [".", "new"]
