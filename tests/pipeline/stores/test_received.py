"""What a lab reads that received a store: a quick check, another root digest, another key, a missing key file."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from cryptography.hazmat.primitives import serialization as forms
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from forgeries import root_by_the_page
from medalign.cli import app
from medalign.teacher_cache.store import open_store
from stores import write_store
from typer.testing import CliRunner

OTHER_ROOT = "ab" * 32


def run(*arguments: object, code: int = 0) -> SimpleNamespace:
    result = CliRunner().invoke(app, ["store", *map(str, arguments)], env={"COLUMNS": "200"})
    assert result.exit_code == code, f"{result.stdout}\n{result.stderr}"
    return SimpleNamespace(out=" ".join(result.stdout.split()), err=" ".join(result.stderr.split()), raw=result.stdout)


def report(*arguments: object, code: int = 0) -> dict[str, object]:
    return json.loads(run(*arguments, "--json", code=code).raw)


def public(seed: int) -> str:
    key = Ed25519PrivateKey.from_private_bytes(bytes([seed] * 32)).public_key()
    return key.public_bytes(forms.Encoding.OpenSSH, forms.PublicFormat.OpenSSH).decode()


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    """A store that is signed with key 1."""
    folder = tmp_path_factory.mktemp("received")
    key = Ed25519PrivateKey.from_private_bytes(bytes([1] * 32))
    (folder / "lab").touch(0o600)
    (folder / "lab").write_bytes(
        key.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.OpenSSH, forms.NoEncryption())
    )
    store = write_store(folder / "s.zarr", range(4), shard_rows=2)
    run("sign", store, "--key", folder / "lab")
    return store


def damage(store: Path) -> Path:
    """Change one byte of a shard file, whose size stays the same."""
    file = next(path for path in sorted((store / "E_v" / "c").rglob("*")) if path.is_file())
    file.write_bytes(bytes([file.read_bytes()[0] ^ 1]) + file.read_bytes()[1:])
    return store


def test_a_quick_check_does_not_say_that_unread_bytes_are_undamaged(store, tmp_path):
    for place in (store, damage(Path(shutil.copytree(store, tmp_path / "damaged.zarr")))):
        told = report("verify", place, "--quick")
        assert (told["undamaged"], told["verified"]) == ("sizes and small files only", None)
        shown = run("verify", place, "--quick").out
        assert "undamaged sizes and small files only verified - " in shown
    told = report("verify", store)
    assert (told["undamaged"], told["verified"]) == (True, True)
    (tmp_path / "damaged.zarr" / "croissant.json").unlink()
    told = report("verify", tmp_path / "damaged.zarr", "--quick", code=4)
    assert (told["undamaged"], told["verified"]) == (False, False)


@pytest.mark.parametrize("options", [[], ["--quick"]])
def test_another_root_digest_is_not_damage(store, options):
    root, words = root_by_the_page(store), ("verify", store, "--expect-root", OTHER_ROOT, *options)
    told = run(*words, code=4).err
    how = " (sizes and small files only)" if options else ""
    assert f"{store} is undamaged{how}, but its root digest is {root}, not the expected {OTHER_ROOT}: " in told
    assert "the one that the authors publish; the SHA-256 of the ZIP is a different value" in told
    assert not any(text in told for text in ("is damaged", "repair"))
    found = report(*words, code=4)
    assert found["undamaged"] == (how.strip(" ()") if options else True)
    assert (found["verified"], found["expected_root"]) == (False, "differs")
    assert [problem["kind"] for problem in found["problems"]] == ["other root"]


def test_another_root_and_another_key_are_both_told(store):
    told = run("verify", store, "--expect-root", OTHER_ROOT, "--signed-by", public(2), code=4).err
    assert f"not the expected {OTHER_ROOT}" in told
    assert "; and it is not signed with the key of --signed-by: the store is signed with " in told
    assert "is damaged" not in told


def test_damage_is_told_whatever_root_is_expected(store, tmp_path):
    copy = damage(Path(shutil.copytree(store, tmp_path / "copy.zarr")))
    told = run("verify", copy, "--expect-root", OTHER_ROOT, code=4).err
    assert "is damaged, 2 problems" in told
    assert "Do not repair" in told
    assert report("verify", copy, "--expect-root", OTHER_ROOT, code=4)["expected_root"] == "not compared"
    root = root_by_the_page(store)
    assert report("verify", copy, "--expect-root", root, code=4)["expected_root"] == "not compared"


def test_the_expected_root_is_accepted_in_both_cases_and_shown(store):
    root = root_by_the_page(store)
    for written in (root, root.upper()):
        assert report("verify", store, "--expect-root", written)["expected_root"] == "matches"
        assert "expected root matches" in run("verify", store, "--expect-root", written).out
    assert "expected_root" not in report("verify", store)


def test_another_key_is_not_told_to_pass_a_key(store):
    assert str(report("verify", store, "--signed-by", public(2), code=4)["signed_by"]).endswith(", another key")
    assert str(report("verify", store, "--signed-by", public(1))["signed_by"]).endswith(", verified")
    assert "--signed-by PUBKEY" in str(report("verify", store)["signed_by"])


def test_a_missing_public_key_is_not_told_to_make_one(store, tmp_path):
    told = run("verify", store, "--signed-by", tmp_path / "their.pub", code=3).err
    assert "pass the .pub file of the authors or its text" in told
    assert "ssh-keygen" not in told
    (tmp_path / "notes.pub").write_text("not a key")
    told = run("verify", store, "--signed-by", tmp_path / "notes.pub", code=3).err
    assert "pass the .pub file of the authors or its text" in told
    assert "ssh-keygen" not in told
    assert "ssh-keygen" in run("sign", store, "--key", tmp_path / "mine", code=3).err


def test_a_zip_is_not_opened_as_a_store_but_unpacked(store, tmp_path):
    run("pack", store, "--out", tmp_path / "s.zip")
    for command in ("info", "verify"):
        told = run(command, tmp_path / "s.zip", code=4).err
        assert f"`medalign store unpack {tmp_path / 's.zip'} --out STORE.zarr`" in told


def test_a_public_key_cannot_sign_whatever_its_permissions(store, tmp_path):
    key = tmp_path / "lab.pub"
    key.write_text(public(1))
    key.chmod(0o644)
    told = run("sign", store, "--key", key, code=3).err
    assert f"{key} is a public key, which cannot sign" in told
    assert "chmod" not in told


def test_a_part_of_a_store_is_not_compared_with_the_digest_of_the_whole(store, tmp_path):
    digest = next(iter(open_store(store)))
    (tmp_path / "hashes").write_text(f"{digest}\n")
    told = run("pull", store, "--hashes", tmp_path / "hashes", "--out", tmp_path / "part.zarr").out
    assert "--expect-root" not in told
    assert "Unless it has all images, its root digest is not that of the whole store" in told
    assert "--expect-root DIGEST" in run("pull", store, "--out", tmp_path / "whole.zarr").out


def test_a_store_that_is_not_there_is_named_by_its_neighbor(store, tmp_path):
    shutil.copytree(store, tmp_path / "shapes.zarr")
    told = run("pull", tmp_path / "shape.zarr", "--out", tmp_path / "copy.zarr", code=4).err
    assert "shape.zarr is not a finished store, and this path does not exist (did you mean" in told
    assert "shapes.zarr" in told
