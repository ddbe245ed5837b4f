"""Results never replace a device, a pipe or a socket, nor a link to one."""

import os
import re
import socket
import stat
from pathlib import Path

import pytest
from medalign.atomic import AtomicFile, append, write_whole
from medalign.cli import app
from medalign.errors import InputError
from medalign.teacher_cache.store.access.local_filesystem import PlainFileSystem
from PIL import Image
from typer.testing import CliRunner


def _pipe(path):
    os.mkfifo(path)


def _socket(path):
    here = Path.cwd()
    os.chdir(path.parent)  # names of sockets are short
    try:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(path.name)
    finally:
        os.chdir(here)


def _device(path):
    try:
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("only root may make devices")


def _link_to_pipe(path):
    os.mkfifo(path.with_name("behind"))
    path.symlink_to("behind")


def _link_to_descriptor(path):
    """As /dev/stdout is, also where the output goes to a file."""
    path.symlink_to("/proc/self/fd/0")


KINDS = {
    "a pipe": _pipe,
    "a socket": _socket,
    "a device": _device,
    "a link to a pipe": _link_to_pipe,
    "a link to /proc/self/fd/0": _link_to_descriptor,
}


@pytest.fixture(params=KINDS)
def special(request, tmp_path):
    path = tmp_path / "special"
    KINDS[request.param](path)
    before = path.lstat()
    yield path, request.param
    assert (path.lstat().st_ino, path.lstat().st_mode) == (before.st_ino, before.st_mode)
    assert {entry.name for entry in tmp_path.iterdir()} <= {"special", "behind", "images"}


def test_a_file_replaces_nothing_special(special, tmp_path):
    path, kind = special
    for write in (
        AtomicFile,
        lambda path: write_whole(path, "text"),
        lambda path: append(path, "text"),
        lambda path: PlainFileSystem().pipe_file(str(path), b"text"),
    ):
        with pytest.raises(InputError, match=re.escape(f"{path} is {kind}, and a new file would replace it")):
            write(path)


def test_an_import_replaces_nothing_special(special, tmp_path, monkeypatch):
    """It is refused before the images are hashed, which can take hours."""
    monkeypatch.setattr("medalign.pipeline.data.import_manifest.find_layout", None)
    path, kind = special
    (tmp_path / "images").mkdir()
    Image.new("L", (2, 2)).save(tmp_path / "images/one.png")
    result = CliRunner().invoke(app, ["data", "import", "folder", str(tmp_path / "images"), "--out", str(path)])
    assert result.exit_code == InputError.exit_code, result.output
    assert f"error: {path} is {kind}, and a new file would replace it" in result.stderr
