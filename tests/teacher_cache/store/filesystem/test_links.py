"""Links inside a store: every command rejects them and names the path; nothing outside is read or written."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from medalign.errors import StoreError
from medalign.progress import Silent
from medalign.teacher_cache.extraction.extension import extend
from medalign.teacher_cache.extraction.stage_one import finish
from medalign.teacher_cache.extraction.store_repair import repair
from medalign.teacher_cache.sharing.merge import merge
from medalign.teacher_cache.sharing.pack import pack
from medalign.teacher_cache.sharing.pull import pull
from medalign.teacher_cache.sharing.push import push
from medalign.teacher_cache.sharing.subset import Wanted, subset
from medalign.teacher_cache.sharing.unpack import unpack
from medalign.teacher_cache.store import open_store
from medalign.teacher_cache.store.access.store_files import LocalFiles
from medalign.teacher_cache.store.checking.verification import verify
from medalign.teacher_cache.store.reading.contents import read_contents
from stores import name_of, write_store

QUIET = Silent()
Link = Callable[[Path, Path], str]
"""Puts a link into a store. Takes the store and a folder outside, and returns the link's path in the store."""


@pytest.fixture(autouse=True)
def _no_hang() -> Iterator[None]:
    """Fail instead of blocking forever on a pipe."""

    def give_up(*_: object) -> None:
        raise AssertionError("a command blocks")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(30)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("sound") / "s.zarr"
    return write_store(out, range(6), failing=[3], unreadable=["a.png: no image"])


def to_file(key: str, *, relative: bool = False, dangling: bool = False, moved: bool = True) -> Link:
    """A link `key` to a file outside: the store's own file (`moved`), another one, or a missing one (`dangling`)."""

    def put(store: Path, outside: Path) -> str:
        target = outside / "authorized_keys"
        if moved:
            (store / key).rename(target)
        elif not dangling:
            target.write_text("ssh-ed25519 AAAA")
        (store / key).symlink_to(os.path.relpath(target, (store / key).parent) if relative else target)
        return key

    return put


def to_folder(key: str, *, moved: bool = True) -> Link:
    def put(store: Path, outside: Path) -> str:
        target = outside / "folder"
        if moved:
            (store / key).rename(target)
        else:
            target.mkdir()
            (target / "thesis.txt").write_text("mine")
        (store / key).symlink_to(target, target_is_directory=True)
        return key

    return put


def to_itself(key: str) -> Link:
    def put(store: Path, outside: Path) -> str:
        (store / key).unlink()
        (store / key).symlink_to(key.rpartition("/")[2])
        return key

    return put


def to_device(key: str) -> Link:
    def put(store: Path, outside: Path) -> str:
        (store / key).unlink()
        (store / key).symlink_to("/dev/zero")
        return key

    return put


def to_pipe(key: str, *, itself: bool = False) -> Link:
    def put(store: Path, outside: Path) -> str:
        (store / key).unlink(missing_ok=True)
        if itself:
            os.mkfifo(store / key)
        else:
            os.mkfifo(outside / "pipe")
            (store / key).symlink_to(outside / "pipe")
        return key

    return put


KINDS: dict[str, Link] = {
    "temporary file of earlier versions": to_file("E_v/zarr.json.partial", moved=False),
    "the same, dangling": to_file("E_a/zarr.json.partial", moved=False, dangling=True),
    "index being written": to_file("index.parquet.partial", moved=False, relative=True),
    "shard being written": to_file("E_v/c/0/0/0.partial", moved=False),
    "metadata being written": to_folder(".metadata.partial", moved=False),
    "lock, dangling": to_file(".lock", moved=False, dangling=True),
    "header": to_file("zarr.json"),
    "manifest, relative": to_file("manifest-sha256.txt", relative=True),
    "shard": to_file("E_v/c/0/0/0"),
    "ledger record": to_file("ledger/000000.json", relative=True),
    "array": to_folder("E_v"),
    "ledger": to_folder("ledger"),
    "folder of a shard": to_folder("E_a/c/0"),
    "loop": to_itself("README.md"),
    "device": to_device("failures.parquet"),
    "pipe behind a link": to_pipe("croissant.json"),
    "pipe": to_pipe("ledger/unreadable.json", itself=True),
    "pipe of somebody else": to_pipe("notes", itself=True),
    "file of somebody else": to_file("notes.txt", moved=False),
}


def everything(folder: Path) -> dict[str, bytes | str | None]:
    """Name -> content, target of a link, or `None` for a folder or pipe; links are not followed."""
    found: dict[str, bytes | str | None] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            found[str(path.relative_to(folder))] = str(path.readlink())
        else:
            found[str(path.relative_to(folder))] = path.read_bytes() if path.is_file() else None
    return found


COMMANDS: dict[str, Callable[..., object]] = {
    "info": lambda store, out, _: read_contents(LocalFiles(store)),
    "verify": lambda store, out, _: verify(store),
    "verify --quick": lambda store, out, _: verify(store, quick=True),
    "repair": lambda store, out, _: repair(store),
    "finish": lambda store, out, _: finish(store),
    "extend": lambda store, out, more: more(store),
    "merge": lambda store, out, _: merge([str(store), str(store)], out, progress=QUIET),
    "push": lambda store, out, _: push(store, str(out), allow=None, progress=QUIET),
    "pull": lambda store, out, _: pull(str(store), out, progress=QUIET),
    "subset": lambda store, out, _: subset(str(store), out, [Wanted(image_hash=name_of(0))], progress=QUIET),
    "pack": lambda store, out, _: pack(store, out, allow=None, progress=QUIET),
    "read": lambda store, out, _: open_store(store),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_command_rejects_a_link(kind, sound, finished, teacher, make_images, tmp_path):
    """Nothing outside changes either: `repair` used to write through half of them."""

    def more(store: Path) -> object:
        return extend(teacher, make_images(9), store)

    for command, run in COMMANDS.items():
        place = tmp_path / command.replace(" ", "")
        outside, store = place / "outside", place / "s.zarr"
        outside.mkdir(parents=True)
        shutil.copytree(finished if command == "extend" else sound, store)
        if command == "extend":
            (store / "ledger/unreadable.json").write_text("[]")
        key = KINDS[kind](store, outside)
        if command == "repair" and key != "E_v":  # something to write
            (store / "E_v/zarr.json").unlink()
            (store / "index.parquet").write_bytes(b"")
        before = everything(place)
        with pytest.raises(StoreError) as caught:
            run(store, place / "out", more)
        assert everything(place) == before, command
        message = str(caught.value)
        assert f"{store / key} is a" in message, (command, message)
        assert "\n" not in message


def test_the_path_of_a_store_may_be_a_link(sound, tmp_path):
    shutil.copytree(sound, tmp_path / "real.zarr")
    (tmp_path / "link.zarr").symlink_to("real.zarr")
    store = tmp_path / "link.zarr"
    assert len(open_store(store)) == 5
    (store / "README.md").unlink()
    assert not repair(store).left
    assert verify(store).ok
    assert store.is_symlink()


def test_hard_linked_files_are_replaced_and_not_overwritten(sound, tmp_path):
    """A backup made of hard links keeps its content."""
    store, backup = tmp_path / "s.zarr", tmp_path / "backup"
    shutil.copytree(sound, backup)
    shutil.copytree(backup, store, copy_function=os.link)
    for key in ("zarr.json", "E_v/zarr.json", "ledger/000000.json", "README.md"):
        harmed = bytearray((store / key).read_bytes())
        harmed[20] ^= 1
        (store / key).unlink()
        (store / key).write_bytes(harmed)
    second = tmp_path / "second"
    shutil.copytree(store, second, copy_function=os.link)
    before = everything(second)
    assert repair(store).restored
    assert verify(store).ok
    assert everything(second) == before
    assert everything(backup) == everything(sound)


@pytest.mark.parametrize("command", ["pull", "unpack", "merge", "pack", "push"])
def test_output_is_never_written_through_a_link(command, sound, tmp_path):
    """A dangling link at the output path counts as existing."""
    outside, out = tmp_path / "outside", tmp_path / "out"
    outside.mkdir()
    out.symlink_to(outside / "stolen")
    pack(sound, tmp_path / "s.zip", allow=None, progress=QUIET)
    run: dict[str, Callable[[], object]] = {
        "pull": lambda: pull(str(sound), out, progress=QUIET),
        "unpack": lambda: unpack(tmp_path / "s.zip", out, progress=QUIET),
        "merge": lambda: merge([str(sound), str(sound)], out, progress=QUIET),
        "pack": lambda: pack(sound, out, allow=None, progress=QUIET),
        "push": lambda: push(sound, str(out), allow=None, progress=QUIET),
    }
    with pytest.raises(StoreError, match="out"):
        run[command]()
    assert everything(outside) == {}
    assert out.is_symlink()


def test_a_push_to_a_folder_follows_no_link(sound, tmp_path):
    """An interrupted push left its marker; then someone put a link in the place of the next file."""
    outside, there = tmp_path / "authorized_keys", tmp_path / "there"
    outside.write_text("ssh-ed25519 AAAA")
    push(sound, str(there), allow=None, progress=QUIET)
    for linked in (there / "README.md", there / "E_v"):
        fresh = tmp_path / f"fresh-{linked.name}"
        shutil.copytree(there, fresh)
        target = fresh / linked.name
        shutil.rmtree(target) if target.is_dir() else target.unlink()
        target.symlink_to(outside if linked.name == "README.md" else there / "E_v")
        with pytest.raises(StoreError, match=f"{linked.name} is a symbolic link"):
            push(sound, str(fresh), allow=None, progress=QUIET)
    assert outside.read_text() == "ssh-ed25519 AAAA"


def test_a_resumed_pull_follows_no_link(sound, tmp_path):
    outside, out = tmp_path / "outside", tmp_path / "out.zarr"
    outside.mkdir()
    building = tmp_path / ".out.zarr.pull.partial"
    building.symlink_to(outside)
    with pytest.raises(StoreError, match="is a symbolic link"):
        pull(str(sound), out, progress=QUIET)
    building.unlink()
    building.mkdir()
    (building / "E_v").symlink_to(outside)
    with pytest.raises(StoreError, match="E_v is a symbolic link"):
        pull(str(sound), out, progress=QUIET)
    assert everything(outside) == {}


def test_an_extension_is_not_written_through_a_link(finished, teacher, make_images, tmp_path):
    store, outside = tmp_path / "s.zarr", tmp_path / "outside"
    shutil.copytree(finished, store)
    shutil.copytree(finished, outside)
    before = everything(outside)
    (tmp_path / "s.zarr.extension").symlink_to(outside)
    with pytest.raises(StoreError, match=r"s\.zarr\.extension is a symbolic link"):
        extend(teacher, make_images(9), store)
    assert everything(outside) == before
