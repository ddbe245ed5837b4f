"""A store that is finished again keeps its signature only if that is for its content."""

import pytest
from forgeries import edit_header
from medalign.teacher_cache.store.checking.signing import sign
from medalign.teacher_cache.store.checking.verification import verify
from medalign.teacher_cache.store.filesystem.locks import RunLock
from medalign.teacher_cache.store.records.zarr_metadata import read_header
from medalign.teacher_cache.store.signatures.signing_keys import SigningKey
from medalign.teacher_cache.store.writing.closing import close_store
from stores import write_store


@pytest.mark.parametrize("title", ["Chests", "Other chests"])
def test_a_signature_for_other_content_is_removed(title, tmp_path):
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    store = write_store(tmp_path / "s.zarr", range(2), title="Chests")
    sign(store, SigningKey(Ed25519PrivateKey.from_private_bytes(bytes(32))))
    edit_header(store, title=title)
    with RunLock(store):
        close_store(store, read_header(store))
    assert (store / "signature.json").exists() == (title == "Chests")
    assert verify(store).problems == ()
