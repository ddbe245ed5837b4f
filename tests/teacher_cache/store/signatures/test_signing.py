"""Signatures: made with common key files, verified with the public key, copied with a store, removed by changes."""

import base64
import json
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from cryptography.hazmat.primitives import serialization as forms
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from forgeries import FORGERIES, edit_header, edit_summary, forge, rewrite_manifest, root_by_the_page, version_1_store
from harms import contents
from medalign.errors import InputError, StoreError
from medalign.progress import Silent
from medalign.teacher_cache.extraction.extension import extend
from medalign.teacher_cache.extraction.stage_one import finish
from medalign.teacher_cache.extraction.store_repair import repair
from medalign.teacher_cache.sharing.merge import merge
from medalign.teacher_cache.sharing.pack import pack
from medalign.teacher_cache.sharing.pull import pull
from medalign.teacher_cache.sharing.push import push
from medalign.teacher_cache.sharing.unpack import unpack
from medalign.teacher_cache.store import open_store
from medalign.teacher_cache.store.checking.signing import sign
from medalign.teacher_cache.store.checking.verification import verify
from medalign.teacher_cache.store.records import ledger
from medalign.teacher_cache.store.signatures.signing_keys import SigningKey, read_signing_key, read_verify_key
from medalign.teacher_cache.store.store_errors import AlteredStore
from medalign.teacher_cache.store.writing.writer import StoreWriter
from stores import write_store

NOBODY = SimpleNamespace(ask=lambda: None)


class Notes(Silent):
    """Collects notes."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)


def private_bytes(key: object, form: str = "openssh", passphrase: bytes | None = None) -> bytes:
    kind = forms.PrivateFormat.OpenSSH if form == "openssh" else forms.PrivateFormat.PKCS8
    lock = forms.BestAvailableEncryption(passphrase) if passphrase else forms.NoEncryption()
    return key.private_bytes(forms.Encoding.PEM, kind, lock)


def public_bytes(key: object, form: str = "openssh") -> bytes:
    if form == "openssh":
        return key.public_key().public_bytes(forms.Encoding.OpenSSH, forms.PublicFormat.OpenSSH) + b" someone@lab\n"
    return key.public_key().public_bytes(forms.Encoding.PEM, forms.PublicFormat.SubjectPublicKeyInfo)


def key_file(path: Path, data: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(data)
    path.chmod(mode)
    return path


@pytest.fixture(scope="module")
def lab() -> SimpleNamespace:
    """A lab's key, and another key."""
    keys = [ed25519.Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in (1, 2)]
    made, other = (read_verify_key(public_bytes(key).decode()) for key in keys)
    return SimpleNamespace(raw=keys[0], key=SigningKey(keys[0]), public=made, other=SigningKey(keys[1]), stranger=other)


@pytest.fixture(scope="module")
def signed(lab, tmp_path_factory) -> Path:
    folder, stated = tmp_path_factory.mktemp("signed"), {"title": "Chests", "licence": "CC-BY-4.0", "tolerance": 0.5}
    shards = {"failing": [1], "unreadable": ["a pipe"], "wide": {1: "float32"}, "shard_rows": 2}
    store = write_store(folder / "s.zarr", range(5), data_use="private", **shards, **stated)
    sign(store, lab.key)
    return store


@pytest.fixture
def copy(signed, tmp_path) -> Path:
    return Path(shutil.copytree(signed, tmp_path / "copy.zarr"))


def test_a_signed_store_is_verified_with_only_the_public_key(signed, lab):
    report = verify(signed, signed_by=lab.public)
    assert (report.ok, report.signature.trusted, report.signature.key) == (True, True, lab.public.fingerprint)
    assert report.root_sha256 == root_by_the_page(signed)
    anonymous = verify(signed)
    assert (anonymous.ok, anonymous.signature.trusted, anonymous.signature.key) == (True, False, lab.public.fingerprint)
    (problem,) = verify(signed, signed_by=lab.stranger).problems
    assert problem.what == f"the store is signed with {lab.public.fingerprint}, not {lab.stranger.fingerprint}"


def test_an_unsigned_store_does_not_verify_with_a_key(tmp_path, lab):
    store = write_store(tmp_path / "s.zarr", range(2))
    assert verify(store).signature.key is None
    (problem,) = verify(store, signed_by=lab.public, quick=True).problems
    assert (problem.kind, problem.key) == ("signer", "signature.json")
    assert problem.what == "the store is not signed"


def test_openssl_and_ssh_keygen_agree(signed, lab, tmp_path):
    """The signed text is the statement in the file, and the fingerprint is the one that ssh-keygen shows."""
    if not (shutil.which("openssl") and shutil.which("ssh-keygen")):
        pytest.skip("needs openssl and ssh-keygen")
    parts = json.loads((signed / "signature.json").read_text())
    (tmp_path / "statement").write_text(parts["statement"])
    (tmp_path / "signature").write_bytes(base64.b64decode(parts["signature"]))
    public = key_file(tmp_path / "lab.pem", public_bytes(lab.raw, "pem"))
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", str(public), "-rawin"]
    command += ["-in", str(tmp_path / "statement"), "-sigfile", str(tmp_path / "signature")]
    result = subprocess.run(command, capture_output=True, text=True)
    if "rawin" in result.stderr:
        pytest.skip("this openssl cannot verify Ed25519")
    assert result.returncode == 0, result.stderr
    ssh = key_file(tmp_path / "lab.pub", public_bytes(lab.raw))
    shown = subprocess.run(["ssh-keygen", "-l", "-f", str(ssh)], capture_output=True, text=True, check=True).stdout
    assert shown.split()[1] == lab.public.fingerprint
    assert json.loads(parts["statement"])["root_sha256"] == root_by_the_page(signed)


@pytest.mark.parametrize("name", FORGERIES)
def test_forgeries_with_recomputed_digests_fail_the_signature(copy, lab, name):
    """Root digest, index and manifest match each other; the lab's signature is for the original store."""
    FORGERIES[name](copy)
    edit_summary(copy, lambda summary: summary.update(root_sha256=root_by_the_page(copy)))
    rewrite_manifest(copy)
    for key in (None, lab.public):
        report = verify(copy, signed_by=key)
        assert {problem.kind for problem in report.problems} == {"signature"}
        assert any("is for root_sha256" in problem.what for problem in report.problems)
    with pytest.raises(AlteredStore, match=r"signature\.json"):
        repair(copy)
    with pytest.raises(AlteredStore, match=r"signature\.json"):
        push(copy, str(copy.with_name("there")), allow="private", progress=Silent())


@pytest.mark.parametrize("fields", [{"batch_size": 3}, {"threads": 7}, {"created_by": "medalign 9"}])
def test_the_signature_covers_the_rest_of_the_header(copy, lab, fields):
    edit_header(copy, **fields)
    rewrite_manifest(copy)
    assert {problem.kind for problem in verify(copy, signed_by=lab.public).problems} == {"signature"}


def change_signature(store: Path, **parts: str) -> None:
    file = store / "signature.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **parts}))
    rewrite_manifest(store)


def test_invalid_signatures_are_detected(copy, lab, tmp_path):
    whole = json.loads((copy / "signature.json").read_text())
    cases = {
        "was not made with the key": {"signature": lab.other.sign(whole["statement"].encode())},
        "the store is signed with": {
            "public_key": lab.other.public.text,
            "signature": lab.other.sign(whole["statement"].encode()),
        },
        "does not contain a statement": {"statement": "[1]", "signature": lab.key.sign(b"[1]")},
        "contains fields other than": {"statement": "{}", "signature": lab.key.sign(b"{}")},
        "does not contain a public key": {"public_key": "ssh-ed25519 AAAA"},
        "algorithm: Input should be 'ed25519'": {"algorithm": "none"},
    }
    for message, parts in cases.items():
        change_signature(copy, **{**whole, **parts})
        problems = verify(copy, signed_by=lab.public).problems
        assert problems, message
        assert any(message in problem.what for problem in problems), problems
        assert not verify(copy, signed_by=lab.public).signature.trusted
    for text in ("", "[]", "null", "\0", '{"a":' * 5000, "x" * 40_000):
        (copy / "signature.json").write_text(text)
        rewrite_manifest(copy)
        assert {problem.kind for problem in verify(copy).problems} == {"signature"}


def test_a_signature_is_copied_with_its_store(signed, lab, tmp_path):
    push(signed, str(tmp_path / "there"), allow="private", progress=Silent())
    pull(str(tmp_path / "there"), tmp_path / "pulled.zarr", progress=Silent())
    pack(signed, tmp_path / "s.zip", allow="private", progress=Silent())
    unpack(tmp_path / "s.zip", tmp_path / "unpacked.zarr", progress=Silent())
    for name in ("there", "pulled.zarr", "unpacked.zarr"):
        assert verify(tmp_path / name, signed_by=lab.public).ok, name


def test_an_unlisted_signature_is_reported(copy, tmp_path):
    lines = (copy / "manifest-sha256.txt").read_text().splitlines(keepends=True)
    (copy / "manifest-sha256.txt").write_text("".join(line for line in lines if "signature" not in line))
    for leave in (
        lambda out: pull(str(copy), out, progress=Silent()),
        lambda out: pack(copy, out, allow="private", progress=Silent()),
    ):
        with pytest.raises(
            StoreError, match=r"signature.json is not listed in manifest-sha256.txt, so it would not be copied"
        ):
            leave(tmp_path / "out")
    repair(copy)
    pull(str(copy), tmp_path / "out", progress=Silent())
    assert (tmp_path / "out/signature.json").exists()


def test_signing_again_replaces_and_damaged_stores_are_not_signed(copy, lab):
    sign(copy, lab.other)
    assert verify(copy, signed_by=lab.other.public).ok
    (copy / "signature.json").write_text("damaged")
    sign(copy, lab.key)
    assert verify(copy, signed_by=lab.public).ok
    data = bytearray((copy / "E_v/c/0/0/0").read_bytes())
    data[3] ^= 1
    (copy / "E_v/c/0/0/0").write_bytes(data)
    before = (copy / "signature.json").read_bytes()
    with pytest.raises(StoreError, match=r"cannot be signed: E_v/c/0/0/0, row 0"):
        sign(copy, lab.other)
    assert (copy / "signature.json").read_bytes() == before


def test_format_1_must_be_converted_before_signing(tmp_path, lab):
    store = version_1_store(tmp_path / "old.zarr")
    with pytest.raises(StoreError, match=r"has format 1, whose root digest does not cover pixel hashes.*Convert it"):
        sign(store, lab.key)


def test_repair_keeps_a_valid_signature(copy, lab):
    (copy / "README.md").unlink()
    notes = Notes()
    assert not repair(copy, progress=notes).left
    assert verify(copy, signed_by=lab.public).ok
    assert notes.texts == []


def test_repair_removes_a_damaged_signature_and_reports_it(copy):
    (copy / "signature.json").write_text("damaged")
    notes = Notes()
    assert not repair(copy, progress=notes).left
    assert not (copy / "signature.json").exists()
    assert verify(copy).ok
    assert ["its signature was damaged or missing" in text for text in notes.texts] == [True]


def test_a_missing_signature_is_detected(copy, lab):
    (copy / "signature.json").unlink()
    (problem,) = verify(copy).problems
    assert (problem.key, problem.what) == ("signature.json", "is missing")
    assert not repair(copy).left
    assert [problem.kind for problem in verify(copy, signed_by=lab.public).problems] == ["signer"]


def test_a_merged_store_is_unsigned_and_this_is_reported(signed, tmp_path):
    other = write_store(tmp_path / "o.zarr", range(7, 9))
    notes = Notes()
    merge([str(signed), str(other)], tmp_path / "m.zarr", progress=notes)
    assert not (tmp_path / "m.zarr/signature.json").exists()
    unsigned = f"the signature of {signed} is not copied with its rows: sign the new store yourself"
    assert [text for text in notes.texts if "the sources state" not in text] == [unsigned]


@pytest.mark.parametrize("form", ["openssh", "pem"])
def test_keys_are_read_in_common_formats(lab, tmp_path, form):
    private = key_file(tmp_path / "key", private_bytes(lab.raw, form))
    public = key_file(tmp_path / "key.pub", public_bytes(lab.raw, form), 0o644)
    assert read_signing_key(private, NOBODY.ask).public == read_verify_key(str(public)) == lab.public


def test_the_passphrase_is_requested_once(lab, tmp_path):
    private = key_file(tmp_path / "key", private_bytes(lab.raw, "pem", b"open sesame"))
    asked: list[str] = []
    assert read_signing_key(private, lambda: asked.append("") or "open sesame").public == lab.public
    assert len(asked) == 1
    with pytest.raises(InputError, match="the passphrase is wrong"):
        read_signing_key(private, lambda: "wrong")
    with pytest.raises(InputError, match="has a passphrase, but there is no terminal"):
        read_signing_key(private, NOBODY.ask)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o610, 0o777])
def test_a_private_key_with_open_permissions_is_rejected(lab, tmp_path, mode):
    private = key_file(tmp_path / "key", private_bytes(lab.raw), mode)
    with pytest.raises(InputError, match=rf"other users can access {private} \(mode {mode:04o}\).*chmod 600 {private}"):
        read_signing_key(private, NOBODY.ask)
    private.chmod(0o400)
    assert read_signing_key(private, NOBODY.ask).public == lab.public


def test_unsuitable_key_files_are_rejected_with_a_specific_error(lab, tmp_path):
    curve = ec.generate_private_key(ec.SECP256R1())
    files = {
        "is a public key, which cannot sign": public_bytes(lab.raw),
        "does not contain a private key": b"hello",
        "is not an Ed25519 key": private_bytes(curve, "pem"),
        "is damaged, or the passphrase is wrong": private_bytes(lab.raw, "pem").replace(b"M", b"N", 1),
        "is too long for a key": b"PRIVATE KEY-----" * 9000,
    }
    for message, data in files.items():
        with pytest.raises(InputError, match=message):
            read_signing_key(key_file(tmp_path / "key", data), NOBODY.ask)
    with pytest.raises(InputError, match=r"cannot read the key .*ssh-keygen -t ed25519"):
        read_signing_key(tmp_path / "none", NOBODY.ask)
    public = {
        "is a private key, which must be kept secret": private_bytes(lab.raw),
        "does not contain a public key": b"hello",
        "does not contain an Ed25519 public key": public_bytes(curve, "pem"),
    }
    for message, data in public.items():
        with pytest.raises(InputError, match=message):
            read_verify_key(str(key_file(tmp_path / "key", data)))
    with pytest.raises(InputError):
        read_verify_key("ssh-\udcff")


def test_finishing_again_drops_a_signature_of_another_root_digest(copy):
    """As in an extension, which removes the manifest first."""
    (copy / "manifest-sha256.txt").unlink()
    ledger.write_unreadable(copy, ["one more"])
    StoreWriter(copy).finish()
    assert not (copy / "signature.json").exists()
    assert verify(copy).ok


def test_an_extension_removes_the_signature_and_reports_it(teacher, make_images, run_extract, lab, tmp_path):
    store, notes = tmp_path / "s.zarr", Notes()
    run_extract(make_images(3), store)
    sign(store, lab.key)
    extend(teacher, make_images(3), store, progress=notes)
    assert verify(store, signed_by=lab.public).ok, "nothing was added"
    extend(teacher, make_images(4), store, progress=notes)
    assert not (store / "signature.json").exists()
    assert verify(store).ok
    assert [f"{store}: its signature was removed" in text for text in notes.texts] == [False, True]


def test_an_altered_store_is_not_extended(teacher, make_images, run_extract, tmp_path):
    store = tmp_path / "s.zarr"
    run_extract(make_images(3), store)
    forge(store, "exchanged pixel hashes")
    with pytest.raises(AlteredStore, match="was changed after it was finished"):
        extend(teacher, make_images(4), store)
    assert [path.name for path in tmp_path.iterdir() if "zarr" in path.name] == ["s.zarr"]
    with pytest.raises(AlteredStore, match="does not match its root digest"):
        run_extract(make_images(3), store, resume=True)


def test_an_extension_keeps_format_1_and_reports_what_it_lacks(teacher, make_images, run_extract, tmp_path):
    store, notes = tmp_path / "s.zarr", Notes()
    run_extract(make_images(3), store)
    (store / "manifest-sha256.txt").unlink()
    edit_header(store, format_version=1)
    StoreWriter(store).finish()
    extend(teacher, make_images(4), store, progress=notes)
    assert (open_store(store).header.format_version, len(open_store(store))) == (1, 4)
    assert verify(store).root_sha256 == open_store(store).root_sha256
    assert sum("has format 1" in text for text in notes.texts) == 1


def test_finish_does_not_drop_a_signature_that_contradicts(copy):
    signed = copy
    edit_header(signed, data_use="public")
    (signed / "manifest-sha256.txt").unlink()
    with pytest.raises(AlteredStore, match=r"signature\.json .* Do not repair"):
        finish(signed)
    assert (signed / "signature.json").is_file()


def test_finish_changes_nothing_if_a_shard_is_missing(copy):
    signed = copy
    away = next(path for path in sorted(signed.glob("E_a/c/**/*")) if path.is_file())
    kept = away.read_bytes()
    away.unlink()
    before = contents(signed)
    with pytest.raises(StoreError, match="is unfinished: 1 of"):
        finish(signed)
    assert contents(signed) == before
    away.write_bytes(kept)
    assert verify(signed).ok
