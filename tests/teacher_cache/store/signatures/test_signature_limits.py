"""Sizes of signatures and key files: the largest is read, one byte or character more is refused."""

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization as forms
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from medalign.errors import InputError
from medalign.teacher_cache.store.signatures.signature import parse_signature
from medalign.teacher_cache.store.signatures.signing_keys import SigningKey, read_signing_key, read_verify_key
from medalign.teacher_cache.store.store_errors import DamagedStore

RAW = Ed25519PrivateKey.from_private_bytes(bytes(32))
FIELDS = {"algorithm": "ed25519", "public_key": "k", "signature": "s", "statement": "t"}


@pytest.mark.parametrize(("name", "most"), [("public_key", 200), ("signature", 200), ("statement", 4096)])
def test_the_texts_of_a_signature_have_a_length(name, most):
    parsed = parse_signature(json.dumps(FIELDS | {name: "x" * most}).encode())
    assert getattr(parsed, name) == "x" * most
    with pytest.raises(DamagedStore, match=f"{name}: String should have at most {most} characters"):
        parse_signature(json.dumps(FIELDS | {name: "x" * (most + 1)}).encode())


def test_a_signature_file_has_at_most_16_kibibytes():
    data = json.dumps(FIELDS).encode()
    assert parse_signature(data.ljust(16384)) == parse_signature(data)
    with pytest.raises(DamagedStore, match="it has 16385 bytes, but at most 16384 are allowed"):
        parse_signature(data.ljust(16385))


@pytest.mark.parametrize("private", [True, False])
def test_a_key_file_has_at_most_64_kibibytes(private, tmp_path):
    """Text after the key, such as a certificate, is ignored."""
    if private:
        data = RAW.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.PKCS8, forms.NoEncryption())
    else:
        data = RAW.public_key().public_bytes(forms.Encoding.PEM, forms.PublicFormat.SubjectPublicKeyInfo)

    def read(size: int) -> object:
        path = Path(tmp_path / "key")
        path.write_bytes(data.ljust(size, b"\n"))
        path.chmod(0o600)
        return read_signing_key(path, lambda: None).public if private else read_verify_key(str(path))

    assert read(65536) == SigningKey(RAW).public
    for size in (65537, 65538, 1 << 20):
        with pytest.raises(InputError, match="is too long for a key"):
            read(size)
