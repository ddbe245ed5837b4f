"""One invalid entry among valid ones makes a manifest or a list of reasons invalid."""

import json

import pytest
from medalign.teacher_cache.store.records import ledger
from medalign.teacher_cache.store.records.digest_list import parse_manifest
from medalign.teacher_cache.store.records.ledger import parse_unreadable
from medalign.teacher_cache.store.store_errors import DamagedStore

DIGEST = "0" * 64


@pytest.mark.parametrize("path", ["b" * 201, "b c", "b\tc", "b\x7f", "bé"])
def test_a_path_that_no_store_has_damages_a_manifest(path):
    good = f"{DIGEST}  a\n{DIGEST}  {'b' * 200}\n"
    assert parse_manifest(good.encode(), "here") == {"a": DIGEST, "b" * 200: DIGEST}
    with pytest.raises(DamagedStore, match="here is damaged: it is not a list of digests and paths"):
        parse_manifest(f"{DIGEST}  a\n{DIGEST}  {path}\n".encode(), "here")


@pytest.mark.parametrize("digest", ["A" * 64, "g" * 64, " " * 64])
def test_a_digest_that_is_none_damages_a_manifest(digest):
    with pytest.raises(DamagedStore, match="here is damaged: it is not a list of digests and paths"):
        parse_manifest(f"{DIGEST}  a\n{digest}  b\n".encode(), "here")


@pytest.mark.parametrize("reasons", ["a", {"a": "b"}, {}, None, 1, [1], ["a", None], [["a"], "b"], ["a", "b" * 901]])
def test_what_is_no_list_of_reasons_is_damage(reasons):
    with pytest.raises(DamagedStore, match="here is damaged: it is not a list of strings"):
        parse_unreadable(json.dumps(reasons).encode(), "here")


def test_a_list_of_too_many_reasons_is_damage(monkeypatch):
    monkeypatch.setattr(ledger, "MOST_UNREADABLE", 3)
    assert parse_unreadable(b'["a", "b", "c"]', "here") == ["a", "b", "c"]
    with pytest.raises(DamagedStore, match="here is damaged"):
        parse_unreadable(b'["a", "b", "c", "d"]', "here")
