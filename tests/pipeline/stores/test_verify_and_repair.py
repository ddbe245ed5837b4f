"""info, verify and repair as they are typed: what they print, what they are told to do, how they exit."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from harms import contents
from medalign.cli import app
from medalign.pipeline.data.phantoms.phantom_dataset import make_phantoms
from medalign.progress import Silent
from medalign.teacher_cache.teachers import teacher_spec
from medalign.teacher_cache.teachers.towers import build_tower
from safetensors.torch import save_file
from typer.testing import CliRunner

SHARD = "E_v/c/1/0/0"


def run(*arguments: object, code: int = 0) -> SimpleNamespace:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    shown = f"{result.stdout}\n{result.stderr}"
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise AssertionError(shown) from result.exception
    assert result.exit_code == code, shown
    return SimpleNamespace(out=result.stdout, err=result.stderr)


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> SimpleNamespace:
    """Seven phantoms, a teacher's weights, a store with keyed hashes in three shards."""
    folder = tmp_path_factory.mktemp("lab")
    torch.manual_seed(3)
    save_file(build_tower(teacher_spec("phantom-tiny")).state_dict(), folder / "teacher.safetensors")
    make_phantoms(folder / "phantoms", 7, 4, Silent())
    run("data", "make-key", folder / "key")
    given = ("--weights", folder / "teacher.safetensors", "--manifest", folder / "phantoms" / "manifest.parquet")
    given = (*given, "--hash-key", folder / "key", "--device", "cpu")
    settings = ("--grid", "3x3", "--shard-rows", 3, "--batch-size", 2, "--threads", 1)
    run("teacher", "extract", "--teacher", "phantom-tiny", *given, *settings, "--out", folder / "s.zarr")
    return SimpleNamespace(folder=folder, store=folder / "s.zarr", given=given)


@pytest.fixture
def copy(lab, tmp_path) -> Path:
    return Path(shutil.copytree(lab.store, tmp_path / "copy.zarr"))


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[300] ^= 1
    file.write_bytes(data)


def test_info_says_what_a_store_is(lab):
    told = json.loads(run("store", "info", lab.store, "--json").out)
    assert (told["images"], told["failures"], told["shards"]) == (7, 0, 3)
    assert told["shards_by_profile"] == {"float16": 3}
    assert told["hashing"].startswith("hmac-sha256:")
    assert told["bytes_in_shards"] == sum(len(data) for key, data in contents(lab.store).items() if "/c/" in key)


def test_quick_says_what_it_did_not_check(lab):
    told = json.loads(run("store", "verify", lab.store, "--quick", "--json").out)
    assert (told["verified"], told["checked"]) == (None, "sizes and ledger")
    assert told["bytes_not_checked"] > 0
    whole = json.loads(run("store", "verify", lab.store, "--json").out)
    assert (whole["checked"], whole["bytes_not_checked"]) == ("every byte", 0)


def test_damage_is_shown_with_the_command_that_repairs_it(lab, copy):
    flip(copy / SHARD)
    (copy / "notes.txt").write_text("mine")
    result = run("store", "verify", copy, "--json", code=4)
    assert [problem["kind"] for problem in json.loads(result.out)["problems"]] == ["stranger", "shard"]
    assert f"error: {copy} is damaged, 2 problems:" in result.err
    assert f"{SHARD}, row 3: the crc32c of the chunk does not match its bytes" in result.err
    assert f"`medalign store repair {copy} --weights FILE --manifest MANIFEST`" in result.err
    assert "or get it again from whoever sent it" in " ".join(result.err.split())
    assert "move them out of the store yourself" in result.err


def test_repair_computes_the_bad_shard_and_restores_the_rest(lab, copy):
    flip(copy / SHARD)
    (copy / "croissant.json").unlink()
    told = json.loads(run("store", "repair", copy, *lab.given, "--json").out)
    assert (told["shards_computed_again"], told["rows_computed_again"]) == (1, 3)
    assert told["rows_equal_to_what_was_committed"] == 3
    assert told["root_sha256"] == told["root_sha256_before"]
    assert told["problems_left"] == 0
    assert contents(copy) == contents(lab.store)


def test_small_damage_is_repaired_without_weights(copy, lab):
    (copy / "manifest-sha256.txt").unlink()
    told = run("store", "verify", copy, code=4).err
    assert f"`medalign store repair {copy}` restores this; it needs neither weights nor images" in told
    run("store", "repair", copy)
    assert contents(copy) == contents(lab.store)


def test_what_repair_lacks_is_said(copy, lab):
    flip(copy / SHARD)
    told = run("store", "repair", copy, code=4).err
    assert f"error: {copy} is still damaged, 1 problem:" in told
    assert "shard 1 needs the teacher's weights (--weights) and the images (--manifest or --images)" in told
    told = run("store", "repair", copy, *lab.given[:2], *lab.given[4:], code=2).err
    assert "exactly one of --manifest FILE or --images FOLDER" in told
    told = run("store", "repair", copy, *lab.given[:4], code=4).err
    assert "the image hashes of" in told
    assert "pass the key that it was created with" in told


def test_a_remote_store_is_not_repaired_from_afar():
    pytest.importorskip("fsspec")
    assert "repair it on its machine" in run("store", "repair", "memory://lab/s.zarr", code=4).err


def test_a_sample_is_computed_again(lab):
    told = json.loads(run("store", "verify", lab.store, "--sample", 3, *lab.given, "--seed", 1, "--json").out)
    sample = told["sample"]
    assert (sample["rows"], sample["within_bounds"], sample["same_pixels"]) == (3, 3, 3)
    assert sample["max_dS"] < 1e-3
    assert sample["min_cosine"] > 0.99999
    assert all(row["max_dS"] <= row["max_dS_allowed"] for row in sample["each"])


def test_rows_that_are_not_what_the_teacher_says_are_found(lab, tmp_path, monkeypatch):
    """A store whose every digest is right, but which was made with another geometry than it says."""
    run(
        *("teacher", "extract", "--teacher", "phantom-tiny", *lab.given, "--grid", "3x3", "--shard-rows", 3),
        *("--geometry", "crop", "--out", tmp_path / "crop.zarr"),
    )
    from medalign.teacher_cache.extraction import row_check

    honest = row_check.prepare_image
    monkeypatch.setattr(
        row_check, "prepare_image", lambda source, spec, geometry, *rest: honest(source, spec, "pad", *rest)
    )
    result = run("store", "verify", tmp_path / "crop.zarr", "--sample", 7, *lab.given, "--json", code=4)
    wrong = [problem for problem in json.loads(result.out)["problems"] if problem["kind"] == "content"]
    assert wrong
    assert "the teacher gives another result for this image: max|dS|" in result.err
    assert "cannot be repaired: ask the store's authors" in result.err


def test_other_weights_are_refused(lab, tmp_path):
    torch.manual_seed(4)
    save_file(build_tower(teacher_spec("phantom-tiny")).state_dict(), tmp_path / "other.safetensors")
    told = run(
        "store",
        "verify",
        lab.store,
        "--sample",
        1,
        "--weights",
        tmp_path / "other.safetensors",
        *lab.given[2:],
        code=4,
    ).err
    assert f"{tmp_path / 'other.safetensors'} (SHA-256" in told
    assert f"is not the weights of {lab.store}" in told


def test_options_of_a_sample_without_a_sample_are_refused(lab):
    told = run("store", "verify", lab.store, "--seed", 1, code=2).err
    assert told == "error: --seed: only used with --sample\n"
    assert "pass the teacher's weights" in run("store", "verify", lab.store, "--sample", 1, code=2).err
