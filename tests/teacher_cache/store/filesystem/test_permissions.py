"""Missing permission is reported as such and not as damage; only its owner can access a store of private data."""

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from medalign.cli import app
from medalign.errors import InputError, StoreError
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
from medalign.teacher_cache.store.access.connection import Connection
from medalign.teacher_cache.store.checking.verification import verify
from medalign.teacher_cache.store.filesystem.filesystem_errors import store_error
from medalign.teacher_cache.store.format.keyed_hashes import make_key, read_key
from medalign.teacher_cache.store.store_errors import DamagedStore, NoPermission
from stores import name_of, write_store
from typer.testing import CliRunner

QUIET = Silent()
NOBODY = 65534


@contextmanager
def umask(value: int) -> Iterator[None]:
    before = os.umask(value)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def somebody_else() -> Iterator[None]:
    """Run the block as another user if this one is root, which may do everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that every user may enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)
        for path in Path(folder).rglob("*"):
            path.chmod(0o700)


def modes(place: Path) -> set[int]:
    """Permission bits of all files, and of all folders without the execute bits."""
    kept = {True: 0o666, False: 0o777}
    return {stat.S_IMODE(path.lstat().st_mode) & kept[path.is_dir()] for path in (place, *place.rglob("*"))}


@pytest.mark.parametrize("data_use", ["private", "credentialed", "public"])
@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077, 0o777])
def test_private_stores_are_accessible_to_their_owner_only(data_use, mask, tmp_path):
    """Under any umask, and with every command."""
    if data_use == "public" and mask == 0o777:
        pytest.skip("this umask keeps even the owner from reading")
    expected = {0o600} if data_use != "public" else {0o666 & ~mask}
    with umask(mask):
        store = write_store(tmp_path / "s.zarr", range(6), failing=[2], data_use=data_use)
        assert modes(store) == expected
        (store / "README.md").unlink()
        (store / "ledger/000000.json").unlink()
        repair(store)
        merge([str(store), str(store)], tmp_path / "m.zarr", progress=QUIET)
        subset(str(store), tmp_path / "c.zarr", [Wanted(image_hash=name_of(0))], progress=QUIET)
        pack(store, tmp_path / "s.zip", allow=None if data_use == "public" else data_use, progress=QUIET)
        unpack(tmp_path / "s.zip", tmp_path / "u.zarr", progress=QUIET)
        pull(str(store), tmp_path / "p.zarr", progress=QUIET)
        for name in ("s.zarr", "m.zarr", "c.zarr", "s.zip", "u.zarr", "p.zarr"):
            assert modes(tmp_path / name) == expected, name


@pytest.mark.parametrize(("folder", "file"), [(0o700, 0o600), (0o750, 0o640), (0o775, 0o664)])
def test_an_extension_has_the_permissions_of_its_store(folder, file, finished, teacher, make_images, tmp_path):
    """An extension gets exactly the permissions that the owner gave the store."""
    store = Path(shutil.copytree(finished, tmp_path / "s.zarr"))
    for path in (store, *store.rglob("*")):
        path.chmod(folder if path.is_dir() else file)
    with umask(0o022):
        extend(teacher, make_images(10), store)
    assert modes(store) == {file}


@pytest.mark.parametrize(
    "key", ["zarr.json", "index.parquet", "ledger/000000.json", "E_v/c/0/0/0", "manifest-sha256.txt"]
)
def test_a_file_without_read_permission_is_not_damaged(key, shared):
    store = write_store(shared / "s.zarr", range(6))
    (store / key).chmod(0)
    reads: dict[str, Callable[[], object]] = {
        "verify": lambda: verify(store),
        "repair": lambda: repair(store),
        "read": lambda: open_store(store).read([name_of(image) for image in range(6)]),
    }
    store.chmod(0o777)
    for command, read in reads.items():
        if command == "read" and key.startswith(("ledger", "manifest")):
            continue  # it only checks that they exist
        with somebody_else(), pytest.raises(StoreError) as caught:
            read()
        assert not isinstance(caught.value, DamagedStore)
        assert f"{store / key}: Permission denied" in str(caught.value), command


@pytest.mark.parametrize("key", ["", "E_v", "E_v/c/0", "ledger"])
def test_a_folder_without_access_is_named(key, shared):
    store = write_store(shared / "s.zarr", range(6))
    (store / key).chmod(0o600)
    for read in (verify, repair, open_store):
        with somebody_else(), pytest.raises(StoreError) as caught:
            read(store)
        assert not isinstance(caught.value, DamagedStore)
        assert "Permission denied" in str(caught.value)
        assert f"{store / key} is d" in str(caught.value).replace(f"{store}/ ", f"{store} ")


def test_a_folder_without_write_permission_is_named(shared):
    store, closed = write_store(shared / "s.zarr", range(6)), shared / "closed"
    closed.mkdir(mode=0o755)
    commands = [
        ["pack", store, "--out", closed / "s.zip"],
        ["merge", store, store, "--out", closed / "m.zarr"],
        ["pull", store, "--out", closed / "p.zarr"],
        ["finish", store],
        ["repair", store],
        ["push", store, closed / "there"],
    ]
    for command in commands:
        with somebody_else():
            if os.geteuid() != NOBODY:
                pytest.skip("only root can have a folder that this user cannot write")
            done = CliRunner().invoke(app, ["teacher" if command[0] == "finish" else "store", *map(str, command)])
        assert done.exit_code == 4, (command, done.stderr)
        assert "ermission" in done.stderr, (command, done.stderr)
        assert str(store if command[0] in ("finish", "repair") else closed) in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("number", "kind", "words"),
    [
        (errno.EACCES, NoPermission, "Permission denied: "),
        (errno.EPERM, NoPermission, "Operation not permitted: "),
        (errno.EROFS, NoPermission, "Read-only file system: the disk is read-only. Shards are kept. Work on a copy"),
        (errno.ENOSPC, StoreError, "No space left on device: the disk is full. Shards are kept. Free some space"),
        (
            errno.EDQUOT,
            StoreError,
            "Disk quota exceeded: your disk quota is used up. Shards are kept.",
        ),
        (errno.EIO, StoreError, "Input/output error"),
    ],
)
def test_file_system_errors_say_what_to_do(number, kind, words, tmp_path):
    file = tmp_path / ".zarr.json.medalign-0123456789abcdef.partial"
    error = store_error(OSError(number, os.strerror(number), str(file)), tmp_path / "s.zarr", "Shards are kept.")
    assert type(error) is kind
    assert str(error).startswith(f"{tmp_path}: {words}")
    assert "Shards are kept." in str(error)
    assert str(store_error(OSError(number, os.strerror(number)), tmp_path)).startswith(f"{tmp_path}: {words[:12]}")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC])
@pytest.mark.parametrize("name", ["open", "mkdir", "fsync"])
def test_every_command_reports_file_system_errors(name, number, tmp_path, monkeypatch):
    store, sound = (write_store(tmp_path / name, range(6)) for name in ("s.zarr", "sound.zarr"))
    (store / "README.md").unlink()
    original = getattr(os, name)

    def fails(*given: Any, **named: Any) -> Any:
        if name != "open" or given[1] & os.O_CREAT:
            raise OSError(number, os.strerror(number), str(given[0]))
        return original(*given, **named)

    merging = ["merge", sound, sound, "--out", tmp_path / "m.zarr"]
    for command in (["repair", store], ["finish", store], merging, ["pull", sound, "--out", tmp_path / "p.zarr"]):
        if command[0] in ("repair", "finish") and name == "mkdir":
            continue
        with monkeypatch.context() as patch:
            patch.setattr(os, name, fails)
            done = CliRunner().invoke(app, ["teacher" if command[0] == "finish" else "store", *map(str, command)])
        assert done.exit_code == 4, (command, done.stderr, done.exception)
        words = {errno.EACCES: "Permission denied", errno.EROFS: "read-only", errno.ENOSPC: "is full"}
        assert words[number] in done.stderr, (command, done.stderr)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_key_that_others_can_read_is_rejected(mode, tmp_path):
    make_key(tmp_path / "key")
    assert read_key(tmp_path / "key")
    (tmp_path / "key").chmod(mode)
    with pytest.raises(InputError, match=r"contains a key and other users can access it .*`chmod 600 .*key`"):
        read_key(tmp_path / "key")


def test_passwords_that_others_can_read_are_rejected(tmp_path, monkeypatch):
    passwords = tmp_path / "netrc"
    passwords.write_text("machine stores.example.org login lab password secret\n")
    passwords.chmod(0o644)
    monkeypatch.setenv("NETRC", str(passwords))
    with pytest.raises(InputError, match="contains passwords and other users can access it"):
        _ = Connection("https://stores.example.org/s.zarr").filesystem
    assert Connection("https://other.example.org/s.zarr").filesystem is not None
    passwords.chmod(0o600)
    assert Connection("https://stores.example.org/s.zarr").filesystem is not None


def test_finish_fails_without_write_permission(shared):
    store = write_store(shared / "s.zarr", range(2))
    store.chmod(0o555)
    with somebody_else(), pytest.raises(NoPermission, match="Permission denied"):
        finish(store)


@pytest.mark.parametrize(("data_use", "expected"), [("private", 0o700), ("public", 0o755)])
def test_a_folder_created_by_push_is_owner_only_unless_public(data_use, expected, tmp_path):
    with umask(0o022):
        store = write_store(tmp_path / "s.zarr", range(2), data_use=data_use)
        push(store, str(tmp_path / "new"), allow=None if data_use == "public" else data_use, progress=QUIET)
        (tmp_path / "shared").mkdir(mode=0o755)
        push(store, str(tmp_path / "shared"), allow=None if data_use == "public" else data_use, progress=QUIET)
    assert (tmp_path / "new").stat().st_mode & 0o777 == expected
    assert (tmp_path / "shared").stat().st_mode & 0o777 == 0o755, "existing permissions are kept"
