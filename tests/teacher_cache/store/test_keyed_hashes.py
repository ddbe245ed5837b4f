"""Keys: read back unchanged even if an editor added whitespace, never shown, never overwritten."""

import hashlib
import hmac
import os
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st
from medalign.cli import app
from medalign.errors import InputError
from medalign.teacher_cache.store.format.keyed_hashes import HashKey, make_key, read_key
from typer.testing import CliRunner


def test_a_key_is_read_back_unchanged(tmp_path):
    path = tmp_path / "lab.key"
    made = make_key(path)
    assert read_key(path) == made
    assert len(made.secret) == 64
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert make_key(tmp_path / "other.key") != made
    path.write_bytes(b"\r\n " + path.read_bytes() + b"\n\n")
    assert read_key(path) == made


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_nobody_else_can_ever_read_a_new_key(tmp_path, umask):
    before = os.umask(umask)
    try:
        make_key(tmp_path / "key")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


def test_a_key_is_never_overwritten(tmp_path):
    path = tmp_path / "lab.key"
    made = make_key(path)
    with pytest.raises(InputError, match="is never overwritten"):
        make_key(path)
    assert read_key(path) == made
    with pytest.raises(InputError, match=r"cannot write the key to .*: No such file"):
        make_key(tmp_path / "none" / "key")


def test_files_that_are_not_keys_are_rejected(tmp_path):
    short = tmp_path / "short"
    short.write_bytes(b"secret\n")
    short.chmod(0o600)
    with pytest.raises(InputError, match="has 6 bytes, but a key needs 32"):
        read_key(short)
    with pytest.raises(InputError, match=r"Pass the key that the store was created with.*For a new store, .*make-key"):
        read_key(tmp_path / "none")


@given(secret=st.binary(min_size=32, max_size=80), digest=st.binary(min_size=32, max_size=32))
def test_a_keyed_hash_is_the_hmac_of_the_hex_digits(secret, digest):
    key = HashKey(secret)
    expected = hmac.digest(secret, digest.hex().encode(), hashlib.sha256).hex()
    assert key.keyed(digest.hex()) == expected
    assert HashKey(secret + b"x").keyed(digest.hex()) != expected
    assert key.hashing == f"hmac-sha256:{key.key_id}"
    assert len(key.key_id) == 16


def test_a_key_is_not_in_its_repr():
    key = HashKey(b"very secret indeed, thirty-two bytes")
    assert "secret indeed" not in repr(key) + str(key) + key.hashing


def test_the_command_shows_the_key_id_and_not_the_key(tmp_path):
    path = tmp_path / "lab.key"
    done = CliRunner().invoke(app, ["data", "make-key", str(path), "--json"])
    assert done.exit_code == 0
    key = read_key(path)
    assert key.hashing in done.output
    assert key.secret.decode() not in done.output
    again = CliRunner().invoke(app, ["data", "make-key", str(path)])
    assert again.exit_code != 0
