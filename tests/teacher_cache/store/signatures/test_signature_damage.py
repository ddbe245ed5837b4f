"""A damaged signature is no evidence against the data; a missing signature or another key is not damage."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from cryptography.hazmat.primitives import serialization as forms
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from forgeries import edit_header, edit_summary, forge, rewrite_manifest, root_by_the_page
from harms import contents, kind_of
from medalign.cli import app
from medalign.errors import StoreError
from medalign.progress import Silent
from medalign.teacher_cache.extraction.store_repair import repair
from medalign.teacher_cache.sharing.pack import pack
from medalign.teacher_cache.sharing.push import push
from medalign.teacher_cache.store import DamagedStore
from medalign.teacher_cache.store.checking.signing import sign
from medalign.teacher_cache.store.checking.verification import verify
from medalign.teacher_cache.store.signatures.signing_keys import SigningKey
from medalign.teacher_cache.store.store_errors import AlteredStore
from mutations import flipped
from stores import write_store
from typer.testing import CliRunner

QUIET = Silent()
KEYS = [Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in (1, 2)]
LAB, OTHER = map(SigningKey, KEYS)


def run(*command: object, code: int = 0) -> SimpleNamespace:
    """Run a command; returns its output as one line, and its JSON."""
    done = CliRunner().invoke(app, ["store", *map(str, command)])
    assert done.exit_code == code, done.output
    values = json.loads(done.stdout) if "--json" in command else None
    return SimpleNamespace(text=" ".join((done.stdout + done.stderr).split()), json=values)


@pytest.fixture(scope="module")
def signed(tmp_path_factory) -> Path:
    store = write_store(tmp_path_factory.mktemp("signed") / "s.zarr", range(3))
    sign(store, LAB)
    return store


@pytest.fixture
def copy(signed, memory_path) -> Path:
    return Path(shutil.copytree(signed, memory_path / "copy.zarr"))


def public(key: Ed25519PrivateKey) -> str:
    return key.public_key().public_bytes(forms.Encoding.OpenSSH, forms.PublicFormat.OpenSSH).decode()


DAMAGE = {
    "a bit of the signature": lambda data: data.replace(b'"signature": "', b'"signature": "A', 1),
    "a bit of the statement": lambda data: data.replace(b"root_sha256", b"root_sha257", 1),
    "a bit of the syntax": lambda data: flipped(data, 0),
    "the end": lambda data: data[:-40],
    "all of it": lambda data: None,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_verify_and_repair_agree_on_a_damaged_signature(copy, damage):
    data = DAMAGE[damage]((copy / "signature.json").read_bytes())
    (copy / "signature.json").unlink()
    if data is not None:
        (copy / "signature.json").write_bytes(data)
    message = run("verify", copy, code=4).text
    assert "Do not repair" not in message
    assert "Only the signature is damaged or missing: restore signature.json" in message
    assert "`medalign store repair` removes it and leaves the store unsigned" in message
    with pytest.raises(DamagedStore, match="signature is damaged or missing"):
        push(copy, str(copy.with_name("there")), allow=None, progress=QUIET)
    repaired = run("repair", copy, "--json")
    assert repaired.json["signature_removed"] is True
    assert repaired.json["problems_left"] == 0
    assert "its signature was damaged or missing, so the store is unsigned now" in repaired.text
    assert not (copy / "signature.json").exists()
    assert verify(copy).ok


def test_a_flipped_bit_of_the_manifest_does_not_remove_the_signature(copy):
    manifest = copy / "manifest-sha256.txt"
    original = contents(copy)
    lines = manifest.read_text().splitlines(keepends=True)
    changed = [("f" if line[0] != "f" else "e") + line[1:] if "signature.json" in line else line for line in lines]
    manifest.write_text("".join(changed))
    assert "signature.json: does not match its SHA-256 in manifest-sha256.txt" in run("verify", copy, code=4).text
    assert run("repair", copy, "--json").json["signature_removed"] is False
    assert contents(copy) == original


@pytest.mark.parametrize("listed", [True, False])
def test_an_intact_signature_of_another_state_is_evidence(copy, listed):
    """A forgery with new digests, but without the signature in the manifest, is not repaired either."""
    signature = (copy / "signature.json").read_bytes()
    forge(copy, "another title")
    edit_summary(copy, lambda summary: summary.update(root_sha256=root_by_the_page(copy)))
    if not listed:
        (copy / "signature.json").unlink()
    rewrite_manifest(copy)
    (copy / "signature.json").write_bytes(signature)
    before = contents(copy)
    message = run("verify", copy, code=4).text
    assert "is for root_sha256" in message
    assert "Do not repair" in message
    assert "was not repaired: signature.json: is for" in run("repair", copy, code=4).text
    for leave in (push, pack):
        with pytest.raises(AlteredStore, match=r"signature\.json is for"):
            leave(copy, copy.with_name("there") if leave is pack else str(copy.with_name("there")), allow=None,
                  progress=QUIET)  # fmt: skip
    assert contents(copy) == before


def test_push_rejects_an_unlisted_signature(copy):
    """The state after a kill between the two writes of signing."""
    signature = (copy / "signature.json").read_bytes()
    (copy / "signature.json").unlink()
    rewrite_manifest(copy)
    (copy / "signature.json").write_bytes(signature)
    there = copy.with_name("there")
    for work in (
        lambda: push(copy, str(there), allow=None, progress=QUIET),
        lambda: pack(copy, there, allow=None, progress=QUIET),
    ):
        with pytest.raises(StoreError, match=r"signature\.json is not listed in .* would not be copied.*store repair"):
            work()
    assert not there.exists()
    assert run("repair", copy, "--json").json["signature_removed"] is False
    push(copy, str(there), allow=None, progress=QUIET)
    assert (there / "signature.json").read_bytes() == signature


@pytest.mark.parametrize("options", [[], ["--quick"]])
def test_unsigned_stores_and_other_keys_are_not_damage(signed, tmp_path, options):
    unsigned = write_store(tmp_path / "unsigned.zarr", range(3))
    stranger = public(KEYS[1])
    message = run("verify", unsigned, "--signed-by", stranger, *options, code=4).text
    assert "but not signed with the key of --signed-by: the store is not signed. This needs no repair" in message
    other = run("verify", signed, "--signed-by", stranger, *options, code=4).text
    assert f"the store is signed with {LAB.public.fingerprint}, not {OTHER.public.fingerprint}" in other
    for text in (message, other):
        assert not any(word in text for word in ("is damaged", "somebody changed", "Do not repair"))
        assert " is undamaged (sizes and small files only), " in text if options else " is undamaged, " in text
    found = run("verify", unsigned, "--signed-by", stranger, "--json", *options, code=4).json
    assert found["verified"] is False
    assert [problem["kind"] for problem in found["problems"]] == ["signer"]
    if not options:
        assert found["root_sha256"] == root_by_the_page(unsigned)


def test_damage_is_reported_regardless_of_the_key(copy):
    (copy / "E_a/c/0/0").unlink()
    message = run("verify", copy, "--signed-by", public(KEYS[1]), code=4).text
    assert "is damaged, 2 problems:" in message
    assert "--weights FILE" in message
    (copy / "E_a/c/0/0").write_bytes(b"")
    assert "is damaged, 1 problem:" in run("verify", copy, code=4).text


def test_a_header_with_another_version_does_not_match_the_signature(copy):
    edit_header(copy, format_version=2.0)
    rewrite_manifest(copy)
    run("verify", copy, "--signed-by", public(KEYS[0]), code=4)


def test_accidental_damage_is_repaired_and_the_signature_kept(memory_path):
    """Damage to a small file of each kind: none makes the signature look like that of another store."""
    store = write_store(memory_path / "s.zarr", range(4), unreadable=["a pipe"], failing=[1], shard_rows=2)
    sign(store, LAB)
    original = contents(store)
    kinds = {kind_of(key): key for key in original if "/c/" not in key and key != "signature.json"}
    assert len(kinds) == 9
    for key in kinds.values():
        damaged = [flipped(original[key], 8 * (len(original[key]) // 2)), *([None] if "ledger/" in key else [])]
        for data in damaged:
            (store / key).unlink()
            if data is not None:
                (store / key).write_bytes(data)
            report = repair(store)
            assert not {"signature", "root"} & {problem.kind for problem in report.found}, key
            assert not report.left, key
            assert contents(store) == original, key
