"""What the sender of a store must pass on, and what its recipient reads: digests, next steps, reports and errors."""

import hashlib
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from forgeries import root_by_the_page
from medalign.cli import app
from stores import write_store
from typer.testing import CliRunner


def run(*arguments: object, code: int = 0) -> SimpleNamespace:
    """Type `medalign store ...`."""
    result = CliRunner().invoke(app, ["store", *map(str, arguments)])
    assert result.exit_code == code, f"{result.stdout}\n{result.stderr}"
    return SimpleNamespace(out=result.stdout, err=result.stderr)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return write_store(tmp_path_factory.mktemp("sender") / "one.zarr", range(6), shard_rows=3)


def test_pack_and_push_print_the_digests_that_a_recipient_needs(store, tmp_path):
    root = root_by_the_page(store)
    packed = json.loads(run("pack", store, "--out", tmp_path / "one.zip", "--json").out)
    assert packed["claimed_root_sha256"] == root
    assert packed["sha256"] == hashlib.sha256((tmp_path / "one.zip").read_bytes()).hexdigest()
    assert json.loads(run("push", store, tmp_path / "a.zarr", "--json").out)["claimed_root_sha256"] == root
    packed, pushed = run("pack", store, "--out", tmp_path / "two.zip").out, run("push", store, tmp_path / "b.zarr").out
    assert root in packed
    assert root in pushed
    assert packed.splitlines()[-1].startswith("next: send the recipients both digests, claimed root sha256 and sha256")
    assert pushed.splitlines()[-1].startswith("next: send the recipients the root digest, claimed root sha256")


def test_the_next_step_of_a_recipient_compares_the_root_digest(store, tmp_path):
    run("pack", store, "--out", tmp_path / "one.zip")
    unpacked = run("unpack", tmp_path / "one.zip", "--out", tmp_path / "one.zarr").out.splitlines()[-1]
    pulled = run("pull", store, "--out", tmp_path / "two.zarr").out.splitlines()[-1]
    assert f"`medalign store verify {tmp_path / 'one.zarr'} --expect-root DIGEST`" in unpacked
    assert f"`medalign store verify {tmp_path / 'two.zarr'} --expect-root DIGEST`" in pulled


@pytest.mark.parametrize("prefix", ["sha256:", "SHA256:"])
def test_a_root_digest_is_accepted_as_croissant_writes_it(store, prefix):
    identifier = json.loads((store / "croissant.json").read_text())["identifier"]
    assert identifier == f"sha256:{root_by_the_page(store)}"
    given = prefix + identifier.removeprefix("sha256:")
    found = json.loads(run("verify", store, "--expect-root", given, "--json").out)
    assert found["expected_root"] == "matches"
    for wrong in ("sha256:", "sha512:" + identifier[7:], "sha256:" + identifier):
        assert "64 hex digits" in run("verify", store, "--expect-root", wrong, code=2).err


def test_verify_prints_each_problem_once(store, tmp_path):
    other = run("verify", store, "--expect-root", "ab" * 32, code=4)
    assert "kind:" not in other.out
    assert (other.out + other.err).count("ab" * 32) == 1
    copy = Path(shutil.copytree(store, tmp_path / "copy.zarr"))
    (copy / "stray").touch()
    (copy / "failures.parquet").unlink()
    damaged = run("verify", copy, code=4)
    assert (damaged.out + damaged.err).count("failures.parquet:") == 1
    assert "rows: ()" not in damaged.out
    assert damaged.out.split("problems")[1].split() == ["2"]
    repaired = run("repair", copy, code=4)
    assert "kind:" not in repaired.out
    assert (repaired.out + repaired.err).count("stray:") == 2  # found, and still left
    assert len(json.loads(run("verify", copy, "--json", code=4).out)["problems"]) == 1


@pytest.mark.parametrize(
    ("given", "complaint", "code"),
    [
        ((), "pass the teacher's weights", 2),
        (("--weights", "w"), "pass exactly one of --manifest FILE or --images FOLDER", 2),
        (("--weights", "w", "--manifest", "m", "--images", "i"), "pass exactly one of --manifest", 2),
        (("--weights", "w", "--images", "i", "--root", "r"), "--root only applies to --manifest", 2),
        (("--weights", "w", "--manifest", "none.parquet"), "none.parquet", 3),
        (("--weights", "w", "--images", "none"), "none", 3),
        (("--weights", "w", "--images", ".", "--hash-key", "none"), "none", 3),
    ],
)
def test_a_sample_is_checked_before_any_shard_is_read(store, tmp_path, monkeypatch, given, complaint, code):
    monkeypatch.chdir(tmp_path)
    from PIL import Image

    Image.new("L", (8, 8)).save("a.png")
    monkeypatch.setattr("medalign.pipeline.stores.verify.verify", lambda *words, **more: pytest.fail("read the shards"))
    assert complaint in run("verify", store, "--sample", 1, *given, code=code).err
