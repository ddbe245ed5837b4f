"""A store is a complete Mapping, and finds rows by image file."""

import pickle
from collections import ChainMap
from collections.abc import ItemsView, KeysView, Mapping, ValuesView

import numpy as np
import pytest
import torch
from medalign.errors import InputError, StoreError
from medalign.teacher_cache.store import HashKey, MissingTeacherRow, open_store
from PIL import Image


@pytest.fixture(scope="module")
def store(finished):
    return open_store(finished)


def test_views_match_those_of_a_mapping(store, make_images):
    hashes = {image.image_hash for image in make_images(8)}
    keys, values, items = store.keys(), store.values(), store.items()
    assert (type(keys), type(values), type(items)) == (KeysView, ValuesView, ItemsView)
    assert isinstance(store, Mapping)
    assert len(store) == len(keys) == len(values) == len(items) == 8
    assert set(keys) == hashes
    assert keys & {*list(hashes)[:2], "0" * 64} == set(list(hashes)[:2])
    for (name, target), value in zip(items, values, strict=True):
        torch.testing.assert_close(target.E_v, store[name].E_v, rtol=0, atol=0)
        torch.testing.assert_close(target.E_a, value.E_a, rtol=0, atol=0)
    assert len(dict(store)) == 8


def test_a_missing_key_is_a_key_error_with_a_plain_message(store, truncated):
    assert "0" * 64 not in store
    assert 3 not in store
    assert store.get("0" * 64) is None
    assert store.get("0" * 64, "nothing") == "nothing"
    with pytest.raises(KeyError) as caught:
        store["0" * 64]
    assert isinstance(caught.value, StoreError)
    assert str(caught.value).startswith("1 of 1 images have no row in ")
    assert truncated.image_hash not in store
    first = next(iter(store))
    assert ChainMap({}, store)[first].E_a.equal(store[first].E_a)


def test_stores_are_equal_only_to_themselves(store, finished):
    other = open_store(finished)
    assert store == store
    assert store != other
    assert len({store, other}) == 2


def test_repr_describes_the_content_and_reads_nothing(store, finished):
    assert repr(store) == (
        f"<TeacherStore {str(finished)!r}: 8 images, teacher phantom-tiny, profile float16, E_v [36, 96], E_a [36]>"
    )
    fresh = pickle.loads(pickle.dumps(store))
    assert repr(fresh) == f"<TeacherStore {str(finished)!r}, not opened yet>"
    assert len(fresh) == 8


def test_repr_of_a_gram_store_names_the_cosines(make_images, run_extract, tmp_path):
    run_extract(make_images(1), tmp_path / "g.zarr", profile="gram16")
    assert repr(open_store(tmp_path / "g.zarr")).endswith("profile gram16, S [36, 36], E_a [36]>")


def test_for_image_finds_the_row_of_a_file(store, make_images, tmp_path):
    image = make_images(8)[5]
    expected = store[image.image_hash]
    renamed = tmp_path / "renamed"
    renamed.write_bytes(image.path.read_bytes())
    resaved = tmp_path / "resaved.bmp"  # other bytes, the same pixels
    Image.open(image.path).save(resaved)
    composed, decomposed = tmp_path / "Sch\u00e4del.png", tmp_path / "Scha\u0308del.png"
    decomposed.write_bytes(image.path.read_bytes())
    for path in (image.path, str(image.path), renamed, resaved, composed):
        found = store.for_image(path)
        assert found.E_v.equal(expected.E_v)
        assert found.E_a.equal(expected.E_a)


def test_for_image_without_a_row_reports_what_was_looked_up(store, truncated, tmp_path):
    foreign = tmp_path / "foreign.png"
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(foreign)
    with pytest.raises(MissingTeacherRow) as caught:
        store.for_image(foreign)
    text = str(caught.value)
    assert text.startswith(f"{foreign}: its bytes have SHA-256 ")
    assert "its pixels have " in text
    assert "`medalign store extend" in text
    with pytest.raises(MissingTeacherRow, match=r"its pixels cannot be decoded: .*which failed during extraction"):
        store.for_image(truncated.path)
    with pytest.raises(InputError, match=r"cannot read .*absent.png: cannot be read: No such file"):
        store.for_image(tmp_path / "absent.png")


def test_a_key_file_opens_a_keyed_store(make_images, run_extract, tmp_path):
    key = tmp_path / "lab.key"
    key.write_text("k" * 32)
    key.chmod(0o600)
    image = make_images(1)[0]
    run_extract([image], tmp_path / "s.zarr", hash_key=HashKey(b"k" * 32))
    for given in (key, str(key), HashKey(b"k" * 32)):
        assert open_store(tmp_path / "s.zarr", given).for_image(image.path).E_a.shape == (36,)
    with pytest.raises(StoreError, match="are keyed"):
        open_store(tmp_path / "s.zarr").for_image(image.path)
