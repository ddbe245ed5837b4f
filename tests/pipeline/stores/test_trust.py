"""verify, sign, convert, info, pull and unpack as they are typed: what is a claim, and what was checked."""

import json
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from cryptography.hazmat.primitives import serialization as forms
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from forgeries import FORGERIES, edit_summary, forge, rewrite_manifest, root_by_the_page, version_1_store
from medalign.cli import app
from medalign.pipeline.data.phantoms.phantom_dataset import make_phantoms
from medalign.progress import Silent
from medalign.teacher_cache.store import open_store
from medalign.teacher_cache.store.filesystem.locks import RunLock
from medalign.teacher_cache.store.reading.rows import row_values
from medalign.teacher_cache.store.writing.writer import StoreWriter
from medalign.teacher_cache.teachers import teacher_spec
from medalign.teacher_cache.teachers.towers import build_tower
from safetensors.torch import save_file
from stores import write_store
from typer.testing import CliRunner


def run(*arguments: object, code: int = 0) -> SimpleNamespace:
    result = CliRunner().invoke(app, ["teacher" if arguments[0] == "extract" else "store", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise AssertionError(result.stderr) from result.exception
    assert result.exit_code == code, f"{result.stdout}\n{result.stderr}"
    return SimpleNamespace(out=result.stdout, err=result.stderr)


def report(*arguments: object, code: int = 0) -> dict[str, object]:
    return json.loads(run(*arguments, "--json", code=code).out)


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> SimpleNamespace:
    """A signed store and the key of who signed it."""
    folder = tmp_path_factory.mktemp("lab")
    key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    private, public = folder / "lab", folder / "lab.pub"
    private.touch(0o600)
    private.write_bytes(key.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.OpenSSH, forms.NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(forms.Encoding.OpenSSH, forms.PublicFormat.OpenSSH))
    store = write_store(folder / "s.zarr", range(5), failing=[1], unreadable=["a pipe"], title="Chests", shard_rows=2)
    told = report("sign", store, "--key", private)
    assert told["root_sha256"] == root_by_the_page(store)
    return SimpleNamespace(store=store, private=private, public=public, root=told["root_sha256"], by=told["signed_by"])


@pytest.fixture
def copy(lab, tmp_path) -> Path:
    return Path(shutil.copytree(lab.store, tmp_path / "copy.zarr"))


def test_a_root_is_a_claim_until_verify_has_recomputed_it(lab, tmp_path):
    run("pack", lab.store, "--out", tmp_path / "s.zip")
    told = {
        "info": report("info", lab.store),
        "pull": report("pull", lab.store, "--out", tmp_path / "a.zarr"),
        "unpack": report("unpack", tmp_path / "s.zip", "--out", tmp_path / "b.zarr"),
        "quick": report("verify", "--quick", lab.store),
    }
    for command, values in told.items():
        assert values["claimed_root_sha256"] == lab.root, command
        assert "root_sha256" not in values, command
    checked = report("verify", lab.store)
    assert checked["root_sha256"] == lab.root
    assert "claimed_root_sha256" not in checked


def test_a_signature_is_unverified_until_the_key_is_given(lab, tmp_path):
    unverified = f"{lab.by}, not verified: `medalign store verify {lab.store} --signed-by PUBKEY`"
    assert report("info", lab.store)["signed_by"] == report("verify", lab.store)["signed_by"] == unverified
    for key in (lab.public, lab.public.read_text()):
        assert report("verify", lab.store, "--signed-by", key)["signed_by"] == f"{lab.by}, verified"
    unsigned = write_store(tmp_path / "u.zarr", range(2))
    assert report("info", unsigned)["signed_by"] is None
    told = run("verify", unsigned, "--signed-by", lab.public, code=4).err
    assert "not signed with the key of --signed-by: the store is not signed" in " ".join(told.split())
    assert "needs no repair" in told


def test_a_valid_signature_is_not_called_verified_unless_every_byte_matches_it(copy, lab):
    def signer(*options, code=0):
        return report("verify", copy, "--signed-by", lab.public, *options, code=code)["signed_by"]

    valid = f"{lab.by}, a signature that is valid for the claimed root digest, but "
    assert signer("--quick") == f"{valid}not every byte was compared with it"
    (copy / "notes.txt").write_text("mine")
    assert signer(code=4) == f"{valid}the store is damaged"
    shard = copy / "E_a" / "c" / "0" / "0"
    shard.write_bytes(bytes(shard.stat().st_size))
    assert signer(code=4) == f"{valid}the contents do not match it"
    shard.unlink()
    assert signer("--quick", code=4) == f"{valid}the contents do not match it"
    (copy / "notes.txt").unlink()
    shutil.copy(lab.store / "E_a" / "c" / "0" / "0", shard)
    assert signer() == f"{lab.by}, verified"
    for name in ("index.parquet", "ledger/000000.json"):
        (copy / name).unlink()
    stated = valid.replace("claimed root digest", "root digest that it states")
    assert signer(code=4) == f"{stated}the contents do not match it"


@pytest.mark.parametrize("width", ["40", "80", "200"])
def test_digests_are_printed_whole_whatever_the_width(lab, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", width)
    for command in ("info", "verify"):
        lines = run(command, lab.store).out.splitlines()
        assert sum(lab.root in line for line in lines) == 1
        assert any(lab.by in line for line in lines)


def test_no_repair_is_advised_where_it_would_make_a_forgery_sound(copy, lab):
    FORGERIES["exchanged pixel hashes"](copy)
    rewrite_manifest(copy)
    told = run("verify", copy, code=4).err
    root = root_by_the_page(copy)
    assert f"index.parquet: its root digest {lab.root} does not match header and ledger, which have {root}" in told
    assert f"Do not repair {copy}" in told
    assert "`medalign store repair" not in told
    assert "was not repaired" in run("repair", copy, code=4).err
    edit_summary(copy, lambda summary: summary.update(root_sha256=root))
    (copy / "signature.json").unlink()
    rewrite_manifest(copy)
    assert report("verify", copy)["verified"] is True, "nothing inside contradicts it"
    told = run("verify", copy, "--expect-root", lab.root, code=4).err
    assert f"its root digest is {root}, not the expected {lab.root}" in told
    assert "`medalign store repair" not in told
    assert "must be a root digest, 64 hex digits" in run("verify", copy, "--expect-root", "abc", code=2).err


def test_private_stores_do_not_leave_as_public_ones(tmp_path):
    store = write_store(tmp_path / "s.zarr", range(3), data_use="private")
    assert "--allow-data-use private" in run("push", store, tmp_path / "there", code=2).err
    forge(store, "private to public")
    for command in (("push", store, tmp_path / "there"), ("pack", store, "--out", tmp_path / "s.zip")):
        assert "was changed after it was finished" in run(*command, code=4).err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.zarr"]


def test_format_1_is_named_with_what_its_root_does_not_cover(tmp_path, lab):
    store = version_1_store(tmp_path / "old.zarr")
    for command in (("info", store), ("verify", store)):
        assert "pixel hashes" in report(*command)["root_does_not_cover"]
    assert "has format 1, whose root digest does not cover pixel hashes" in " ".join(run("verify", store).err.split())
    assert "Convert it before signing it" in run("sign", store, "--key", lab.private, code=4).err
    before = report("verify", store)["root_sha256"]
    told = report("convert", store)
    assert (told["format_version_before"], told["format_version"], told["root_sha256_before"]) == (1, 2, before)
    assert told["root_sha256"] == report("verify", store)["root_sha256"] == root_by_the_page(store)
    assert "root_does_not_cover" not in report("verify", store)
    assert "already has format 2" in " ".join(run("convert", store).err.split())
    run("sign", store, "--key", lab.private)
    assert report("verify", store, "--signed-by", lab.public)["verified"] is True


def test_a_key_that_others_can_read_signs_nothing(copy, lab, tmp_path):
    loose = tmp_path / "loose"
    loose.write_bytes(lab.private.read_bytes())
    loose.chmod(0o644)
    before = (copy / "signature.json").read_bytes()
    assert "chmod 600" in run("sign", copy, "--key", loose, code=3).err
    assert (copy / "signature.json").read_bytes() == before


def test_keys_of_ssh_keygen_sign(copy, tmp_path):
    if not shutil.which("ssh-keygen"):
        pytest.skip("needs ssh-keygen")
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "someone", "-f", str(tmp_path / "key")]
    subprocess.run(command, check=True)
    run("sign", copy, "--key", tmp_path / "key")
    assert report("verify", copy, "--signed-by", tmp_path / "key.pub")["verified"] is True


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory) -> SimpleNamespace:
    """Six phantoms and a store of them in each of two profiles."""
    folder = tmp_path_factory.mktemp("phantoms")
    torch.manual_seed(3)
    save_file(build_tower(teacher_spec("phantom-tiny")).state_dict(), folder / "teacher.safetensors")
    make_phantoms(folder / "images", 6, 4, Silent())
    given = ("--weights", folder / "teacher.safetensors", "--manifest", folder / "images/manifest.parquet")
    given = (*given, "--device", "cpu")
    for profile in ("float16", "gram12"):
        settings = ("--teacher", "phantom-tiny", "--grid", "3x3", "--profile", profile, "--threads", 1)
        run("extract", *settings, *given, "--out", folder / f"{profile}.zarr")
    return SimpleNamespace(folder=folder, given=given)


@pytest.mark.parametrize("profile", ["float16", "gram12"])
def test_a_sample_is_measured_by_profile_and_image_not_by_the_record(phantoms, tmp_path, profile):
    """Each image has another one's features, its own attention, and a record that allows any difference."""
    honest = phantoms.folder / f"{profile}.zarr"
    sound = report("verify", honest, "--sample", 6, *phantoms.given)["sample"]
    assert (sound["within_bounds"], sound["rows"]) == (6, 6)
    store = made_up(honest, tmp_path / "s.zarr")
    assert report("verify", store)["verified"] is True
    told = report("verify", store, "--sample", 6, *phantoms.given, code=4)
    assert told["sample"]["within_bounds"] == 0
    assert {problem["kind"] for problem in told["problems"]} == {"content"}


def made_up(honest: Path, out: Path) -> Path:
    """A store by the real writer, whose digests all fit."""
    store = open_store(honest)
    images = store.index_columns(["image_hash", "pixel_hash"]).to_pylist()
    rows = [
        {name: array[0] for name, array in row_values(row).items()} for row in store.stored_rows(range(len(images)))
    ]
    StoreWriter.create(out, store.header, [image["image_hash"] for image in images])
    with RunLock(out):
        writer = StoreWriter(out)
        shard = writer.begin(0)
        for number, (image, row) in enumerate(zip(images, rows, strict=True)):
            arrays = {**rows[number - 1], "E_a": row["E_a"]}
            shard.append(arrays, **image, size=(96, 96), max_abs_dS=2.0)
        shard.commit()
        writer.finish()
    return out
