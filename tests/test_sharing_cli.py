"""The sharing commands as a user types them."""

import errno
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from medalign.cli import app
from medalign.pipeline.data.manifest import Manifest, ManifestRow
from medalign.teacher_cache.store import open_store
from servers import FileServer
from stores import name_of, pixels_of, write_store
from typer.testing import CliRunner


def run(*arguments: object, code: int = 0) -> SimpleNamespace:
    """Type `medalign store ...`."""
    result = CliRunner().invoke(app, ["store", *map(str, arguments)])
    shown = f"{result.stdout}\n{result.stderr}"
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise AssertionError(shown) from result.exception
    assert result.exit_code == code, shown
    return SimpleNamespace(out=result.stdout, err=result.stderr)


def report(*arguments: object) -> dict:
    return json.loads(run(*arguments, "--json").out)


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("lab")
    write_store(folder / "one.zarr", range(6))
    write_store(folder / "two.zarr", range(4, 9), data_use="credentialed")
    return folder


def test_pack_and_unpack(lab, tmp_path):
    packed = report("pack", lab / "one.zarr", "--out", tmp_path / "one.zip")
    assert packed["bytes_on_disk"] == (tmp_path / "one.zip").stat().st_size
    unpacked = report("unpack", tmp_path / "one.zip", "--out", tmp_path / "one.zarr")
    assert unpacked["claimed_root_sha256"] == open_store(lab / "one.zarr").root_sha256
    assert run("verify", tmp_path / "one.zarr").out
    told = run("pack", lab / "two.zarr", "--out", tmp_path / "two.zip", code=2).err
    assert "--allow-data-use credentialed" in told
    run("pack", lab / "two.zarr", "--out", tmp_path / "x.zip", "--allow-data-use", "private", code=2)
    table = run("pack", lab / "two.zarr", "--out", tmp_path / "two.zip", "--allow-data-use", "credentialed").out
    assert "credentialed" in table
    (tmp_path / "text.zip").write_text("hello")
    assert "not a packed store" in run("unpack", tmp_path / "text.zip", "--out", tmp_path / "x.zarr", code=3).err


def test_results_do_not_go_inside_a_store(lab, tmp_path):
    inside, link = lab / "one.zarr/ledger/new", tmp_path / "link"
    link.symlink_to(lab / "one.zarr", target_is_directory=True)
    for words in (
        ("pack", lab / "two.zarr", "--out", inside),
        ("merge", lab / "one.zarr", lab / "two.zarr", "--out", link / "new"),
        ("push", lab / "one.zarr", inside),
        ("pull", lab / "one.zarr", "--out", inside),
    ):
        told = run(*words, code=2).err
        assert f"is inside the teacher store {lab / 'one.zarr'}" in told, words
    assert run("verify", lab / "one.zarr").out


def test_push_and_pull(lab, tmp_path):
    pushed = report("push", lab / "one.zarr", tmp_path / "there.zarr")
    assert pushed["bytes_transferred"] == sum(
        file.stat().st_size for file in (lab / "one.zarr").rglob("*") if file.is_file()
    )
    with FileServer(tmp_path) as server:
        pulled = report("pull", f"{server.url}/there.zarr", "--out", tmp_path / "back.zarr")
        assert pulled["claimed_root_sha256"] == open_store(lab / "one.zarr").root_sha256
        assert run("info", f"{server.url}/there.zarr").out
        assert run("verify", "--quick", f"{server.url}/there.zarr").out
        told = run("pull", f"{server.url}/nothing.zarr", "--out", tmp_path / "x.zarr", code=4).err
    assert "is not a finished store" in told
    assert "private.zarr" not in run("push", lab / "two.zarr", tmp_path / "private.zarr", code=2).out
    assert not (tmp_path / "private.zarr").exists()


def test_some_images_by_manifest_or_hashes(lab, tmp_path):
    rows = [
        ManifestRow(
            image=f"{image}.png",
            image_hash="0" * 64 if image == 2 else name_of(image),  # re-saved: found by its pixels
            pixel_hash=pixels_of(image),
            width=1,
            height=1,
            question_id=str(image),
            split="test",
            data_use="public",
        )
        for image in (0, 2, 5)
    ]
    Manifest.from_rows(rows, tmp_path, "three").write(tmp_path / "three.parquet")
    with FileServer(lab) as server:
        url = f"{server.url}/one.zarr"
        by_manifest = report("pull", url, "--manifest", tmp_path / "three.parquet", "--out", tmp_path / "a.zarr")
    (tmp_path / "hashes.txt").write_text("\n".join(name_of(image).upper() for image in (5, 0, 2, 0)) + "\n\n")
    by_hashes = report("subset", lab / "one.zarr", "--hashes", tmp_path / "hashes.txt", "--out", tmp_path / "b.zarr")
    assert by_manifest["root_sha256"] == by_hashes["root_sha256"] == open_store(tmp_path / "b.zarr").root_sha256
    assert by_hashes["images"] == 3
    out = ("--out", tmp_path / "c.zarr")
    assert "exactly one of --manifest FILE or --hashes FILE" in run("subset", lab / "one.zarr", *out, code=2).err
    (tmp_path / "hashes.txt").write_text(f"{name_of(0)}\nchest.png\n")
    told = run("subset", lab / "one.zarr", "--hashes", tmp_path / "hashes.txt", *out, code=3).err
    assert "line 2 of" in told
    assert "not a SHA-256 in hex: 'chest.png'" in told
    (tmp_path / "hashes.txt").write_text(f"{'a' * 64}\n")
    assert "1 of 1 images have no row" in run(
        "subset", lab / "one.zarr", "--hashes", tmp_path / "hashes.txt", *out, code=4
    ).err  # fmt: skip
    assert not (tmp_path / "c.zarr").exists()


def test_merge(lab, tmp_path):
    merged = report("merge", lab / "one.zarr", lab / "two.zarr", "--out", tmp_path / "sum.zarr")
    assert (merged["images"], merged["repeated"], merged["taken"]) == (9, 2, [6, 3])
    assert (merged["data_use"], merged["differing"]) == ("credentialed", [])
    assert merged["sources"] == [str(lab / "one.zarr"), str(lab / "two.zarr")]
    write_store(tmp_path / "three.zarr", range(3), geometry="crop")
    told = run("merge", lab / "one.zarr", tmp_path / "three.zarr", "--out", tmp_path / "x.zarr", code=4).err
    assert "geometry is pad and crop" in told


def test_a_full_disk_is_told_and_urls_are_not_taken_for_folders(lab, tmp_path, monkeypatch):
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    commands = {
        "pack": ("pack", lab / "one.zarr", "--out"),
        "pull": ("pull", lab / "one.zarr", "--out"),
        "merge": ("merge", lab / "one.zarr", lab / "two.zarr", "--out"),
    }
    for name, arguments in commands.items():
        out = tmp_path / name
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            assert "No space left on device" in run(*arguments, out, code=4).err
        assert "is a URL" in run(*arguments, "s3://bucket/x.zarr", code=2).err
        run(*arguments, out)
    assert "is a URL" in run("push", "s3://bucket/x.zarr", tmp_path / "x", code=2).err
    assert not Path("s3:").exists()


@pytest.mark.parametrize("command", ["push", "pull", "subset", "merge"])
def test_an_interruption_says_what_is_kept(lab, tmp_path, monkeypatch, command):
    """And the same command goes on."""

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    (tmp_path / "h.txt").write_text(name_of(1))
    arguments = {
        "push": ("push", lab / "one.zarr", tmp_path / "out.zarr"),
        "pull": ("pull", lab / "one.zarr", "--out", tmp_path / "out.zarr"),
        "subset": ("subset", lab / "one.zarr", "--hashes", tmp_path / "h.txt", "--out", tmp_path / "out.zarr"),
        "merge": ("merge", lab / "one.zarr", lab / "two.zarr", "--out", tmp_path / "out.zarr"),
    }[command]
    place = {"push": "sharing.push._upload_all", "pull": "sharing.pull._fetch_all"}.get(
        command, "store.writing.row_copies._append"
    )
    with monkeypatch.context() as patch:
        patch.setattr(f"medalign.teacher_cache.{place}", interrupt)
        told = run(*arguments, code=130).err
    assert "interrupted; " in told
    assert "run the same command again to continue" in told
    assert not (tmp_path / "out.zarr/manifest-sha256.txt").exists()
    run(*arguments)
    assert len(open_store(tmp_path / "out.zarr")) > 0
    shutil.rmtree(tmp_path / "out.zarr")
    assert [file.name for file in tmp_path.iterdir()] == ["h.txt"]
