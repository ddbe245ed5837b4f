"""The data card and the Croissant metadata of a store are correct, and equal for equal stores."""

import hashlib
import json
import re
from pathlib import Path

import polars as pl
import pytest
from medalign.teacher_cache.sharing.data_use_gate import RESTRICTIVENESS
from medalign.teacher_cache.store import HashKey, open_store
from medalign.teacher_cache.store.cards.croissant import INDEX_COLUMNS
from medalign.teacher_cache.store.cards.store_card import DATA_USE_MEANING, render_card
from stores import store_header, write_store

STATED = {"title": "Chests | of\nphantoms", "licence": "CC-BY-4.0", "data_use": "credentialed", "tolerance": 0.01}


def write(folder: Path) -> Path:
    return write_store(folder, range(7), failing=[2], unreadable=["no permission"], wide={0: "float32"}, **STATED)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("card") / "s.zarr")


def test_the_card_describes_the_store(store):
    card, opened = (store / "README.md").read_text(), open_store(store)
    for fact in (
        "# Chests \\| of phantoms",
        "for 6 images",
        "6 with a row, 2 that could not be used",
        f"**credentialed**: {DATA_USE_MEANING['credentialed']}",
        "| licence | CC-BY-4.0 |",
        f"`{opened.root_sha256}`",
        f"`{opened.fingerprint}`",
        f"`{opened.header.weights_sha256}`",
        "| `E_v/` | 16 patch x 8 channel | float16 |",
        "max|dS| of every row is at most 0.01",
        "feature inversion",
        "sha256sum --check --quiet manifest-sha256.txt",
        "medalign store verify STORE",
        "arXiv:2512.18554",
    ):
        assert fact in card
    assert "{" not in card, "a place that nothing was put in"


@pytest.mark.parametrize("profile", ["float16", "int8", "gram12"])
@pytest.mark.parametrize("data_use", RESTRICTIVENESS)
def test_every_kind_of_store_has_a_card(profile, data_use):
    key = HashKey(b"long enough to be a key, surely it is")
    header = store_header(range(3), profile=profile, data_use=data_use, hashing=key.hashing)
    card = render_card(header, images=3, failures=0, root_sha256="e" * 64)
    assert "# Teacher store of random" in card
    assert "| licence | not stated |" in card
    assert f"HMAC-SHA256 under the owner's secret key ({key.key_id})" in card
    assert all(f"`{array.name}/`" in card for array in header.arrays())


def test_equal_stores_have_equal_texts(store, tmp_path):
    same = write(tmp_path / "elsewhere.zarr")
    for name in ("README.md", "croissant.json"):
        text = (same / name).read_text()
        assert text == (store / name).read_text()
        assert str(tmp_path) not in text
        assert not re.search(r"\d{4}-\d\d-\d\d", text), "a date"


def test_croissant_meets_the_specification(store):
    """https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html; `datePublished` is the publisher's to add."""
    described = json.loads((store / "croissant.json").read_text())
    required = ("@context", "@type", "conformsTo", "description", "license", "name", "url", "creator", "distribution")
    assert not [name for name in required if not described.get(name)]
    assert described["conformsTo"] == "http://mlcommons.org/croissant/1.1"
    assert described["@context"]["conformsTo"] == "dct:conformsTo"
    assert (described["@type"], described["license"]) == ("sc:Dataset", "CC-BY-4.0")
    assert "credentialed" in described["usageInfo"]
    terms = set(described["@context"])
    used = {name for part in described["recordSet"] for field in part["field"] for name in field["source"]}
    assert used | {"recordSet", "field", "includes", "key", "citeAs"} <= terms


def test_croissant_describes_the_existing_files(store):
    described = json.loads((store / "croissant.json").read_text())
    index, *sets = described["distribution"]
    assert index["sha256"] == hashlib.sha256((store / "index.parquet").read_bytes()).hexdigest()
    assert index["contentUrl"] == "index.parquet"
    patterns = {each["@id"]: each["includes"] for each in sets}
    patterns = {name: [found] if isinstance(found, str) else found for name, found in patterns.items()}
    found = {name: [file for each in patterns[name] for file in store.glob(each)] for name in patterns}
    assert {name: len(files) for name, files in found.items()} == {
        "E_v": 1,
        "E_a": 1,
        "zarr-metadata": 7,
        "ledger": 3,
        "failures": 1,
        "wide-shards": 2,
    }
    (records,) = described["recordSet"]
    columns = [field["source"]["extract"]["column"] for field in records["field"]]
    assert columns == list(INDEX_COLUMNS) == list(pl.read_parquet_schema(store / "index.parquet"))
    ids = [each["@id"] for each in [index, *sets, records, *records["field"]]]
    assert len(set(ids)) == len(ids)
    assert {field["source"]["fileObject"]["@id"] for field in records["field"]} == {index["@id"]}
    assert records["key"]["@id"] in ids
