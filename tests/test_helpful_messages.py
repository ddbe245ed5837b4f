"""Messages name the thing to do next, also where somebody else has to do it."""

import json
import shutil
import subprocess

import polars as pl
import pytest
from labs import lab_settings, make_lab, write_config
from medalign.cli import app
from medalign.pipeline.stores.verify import _unverified
from release_trees import draw
from stores import write_store
from typer.testing import CliRunner


def run(*words, code=0):
    result = CliRunner().invoke(app, list(map(str, words)))
    assert result.exit_code == code, result.output
    return result


def as_one_line(text):
    return " ".join(text.split())


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab") / "one.zarr"
    write_store(folder, range(6))
    return folder


def shard_file(store):
    return next(path for path in sorted((store / "E_v" / "c").rglob("*")) if path.is_file())


def test_unpacking_a_damaged_file_says_whom_to_ask(store, tmp_path):
    run("store", "pack", store, "--out", tmp_path / "one.zip")
    packed, rows = (tmp_path / "one.zip").read_bytes(), shard_file(store).read_bytes()
    (tmp_path / "flipped.zip").write_bytes(packed.replace(rows, rows[:-1] + bytes([rows[-1] ^ 1])))
    (tmp_path / "cut.zip").write_bytes(packed[:500])
    for name in ("flipped.zip", "cut.zip"):
        told = as_one_line(run("store", "unpack", tmp_path / name, "--out", tmp_path / "x.zarr", code=4).stderr)
        assert f"error: the packed store {tmp_path / name} is damaged: " in told
        assert "Compare the SHA-256 of" in told
        assert "ask the sender to run `medalign store verify`" in told
        assert not (tmp_path / "x.zarr").exists()
    told = run("store", "unpack", tmp_path / "none.zip", "--out", tmp_path / "x.zarr", code=3).stderr
    assert "sender" not in told, "a file that does not exist is not damaged"


@pytest.mark.parametrize("harm", ["changed", "missing"])
def test_pulling_a_damaged_store_says_whom_to_ask(store, tmp_path, harm):
    theirs = tmp_path / "theirs.zarr"
    shutil.copytree(store, theirs)
    file = shard_file(theirs)
    rows = file.read_bytes()
    file.unlink()
    if harm == "changed":
        file.write_bytes(rows[:-1] + bytes([rows[-1] ^ 1]))
    told = as_one_line(run("store", "pull", theirs, "--out", tmp_path / "ours.zarr", code=4).stderr)
    assert "Run the command again, in case the transfer was at fault" in told
    assert "ask its authors to run `medalign store verify` and `medalign store repair`" in told
    assert not (tmp_path / "ours.zarr").exists()


def test_a_store_signed_by_somebody_else_is_undamaged_and_not_verified(store, tmp_path):
    if not shutil.which("ssh-keygen"):
        pytest.skip("needs ssh-keygen")
    shutil.copytree(store, tmp_path / "one.zarr")
    for name in ("theirs", "another"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(tmp_path / name)], check=True
        )
    run("store", "sign", tmp_path / "one.zarr", "--key", tmp_path / "theirs")
    words = ("store", "verify", tmp_path / "one.zarr", "--json", "--signed-by", tmp_path / "another.pub")
    told = json.loads(run(*words, code=4).stdout)
    assert (told["undamaged"], told["verified"]) == (True, False)
    shard_file(tmp_path / "one.zarr").unlink()
    told = json.loads(run(*words, code=4).stdout)
    assert (told["undamaged"], told["verified"]) == (False, False)


def test_the_hint_to_check_a_signature_is_a_command_that_works():
    assert "`medalign store verify a.zarr --signed-by" in _unverified("k", "a.zarr")
    assert "`medalign store verify s3://lab/a.zarr --quick --signed-by" in _unverified("k", "s3://lab/a.zarr")


def test_inferred_answer_types_are_only_mentioned_if_there_are_any(tmp_path):
    draw(tmp_path / "images" / "0.png", 0)
    rows = {"image": ["0.png"] * 3, "question": ["a?", "b?", "c?"], "answer": ["yes", "two", "no"]}
    for types, inferred in ((["closed", "open", "closed"], 0), (["closed", None, None], 2), (None, 3)):
        table = pl.DataFrame(rows | ({"answer_type": types} if types else {}))
        table.write_csv(tmp_path / "lab.csv")
        told = as_one_line(run("data", "import", "table", tmp_path / "lab.csv", "--out", tmp_path / "m.parquet").stderr)
        assert "answer types: 2 closed, 1 open" in told
        assert (f"; {inferred} of them inferred" in told) == (inferred > 0)
        assert ("inferred" in told) == (inferred > 0)


def test_a_dry_run_says_that_files_were_not_compared(tmp_path):
    lab = make_lab(tmp_path)
    config = write_config(lab / "run.yaml", lab_settings(lab))
    told = as_one_line(run("student", "train", config, "--dry-run").stderr)
    assert "were not compared with the manifest" in told
    assert "--hashes` compares all of them now" in told
    assert "the store's bytes are compared as they are read" in told
    assert f"`medalign store verify {lab / 'store.zarr'}` compares all of them now" in told
