"""The Python API rejects arguments of a wrong kind with a `MedalignError` that names them, before it does any work."""

import json
import re
from pathlib import Path

import medalign
import numpy as np
import pytest
from medalign.api.arguments import check_choices, check_positive, local_path
from medalign.errors import InputError, MedalignError, SettingsError, StoreError
from medalign.progress import Silent
from medalign.teacher_cache.sharing.pull import pull
from medalign.teacher_cache.sharing.unpack import unpack
from stores import write_store

KEYS = ("a.png", "", "AB" * 32, "ab" * 16, "ab" * 32 + "\n", "ab" * 32)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return medalign.open_store(write_store(tmp_path_factory.mktemp("stores") / "s.zarr", range(2)))


@pytest.mark.parametrize("key", KEYS)
def test_a_key_that_is_no_hash_of_the_store_is_missing_in_every_way(key, store):
    """A Mapping's `in`, `get` and `[]` agree, whatever the key is."""
    assert key not in store
    assert store.get(key, "default") == "default"
    assert store.missing([key]) == [key]
    with pytest.raises(KeyError) as caught:
        store[key]
    assert isinstance(caught.value, medalign.MissingTeacherRow)


@pytest.mark.parametrize("key", [key for key in KEYS if key != "ab" * 32])
def test_a_key_that_cannot_be_a_hash_is_answered_with_what_can(key, store):
    with pytest.raises(medalign.MissingTeacherRow, match=r"64 lowercase hexadecimal digits.*store\.for_image\(path\)"):
        store.read([next(iter(store)), key])


def test_one_hash_is_not_taken_for_a_list_of_letters(store):
    (first, _) = store
    for call in (store.read, store.missing):
        with pytest.raises(InputError, match="pass a list of image hashes, not one string"):
            call(first)
        with pytest.raises(InputError, match="2 pixel hashes for 1 images"):
            call([first], ["a", "b"])
    assert store.missing(iter(store)) == []
    assert store.read(hash for hash in store).E_a.shape[0] == 2


PATTERNS = {
    "path": r"must be .*(path|mapping).*, not \w+$",
    "choice": r"geometry: .* is not one of pad, crop",
    "grid": r"must be ROWSxCOLUMNS, for example 24x24",
    "number": r"batch_size must be a whole number of at least 1, got ",
    "text": r" must be text, not (int|bytes|list)",
    "pairs": r"must be a (list of pairs|pair) \(image, question\), not ",
    "progress": r"progress must be True, False, or an object with the methods start, advance and note, not ",
    "overrides": r"overrides(: the name of a setting must be text| must be a dictionary, or a list such as)",
    "name": r"unknown teacher ",
    "[]": r"64 lowercase hexadecimal digits.*store\.for_image\(path\)",
}
RETURNED = {"in": "False", "get": "'default'", "missing": "True"}


def test_values_of_wrong_types_are_errors_to_act_on(store, forks):
    (ended,) = forks.run(Path(__file__).with_name("wrong_arguments.py"), store.location)
    assert ended.code == 0, ended.stderr
    outcomes = json.loads(ended.stdout)
    assert {kind for kind, *_ in outcomes} == {*PATTERNS, *RETURNED}
    for kind, how, *rest in outcomes:
        if kind in RETURNED:
            assert (how, *rest) == ("returned", RETURNED[kind]), kind
        else:
            assert how == "raised", (kind, rest)
            assert re.search(PATTERNS[kind], rest[1]), (kind, rest)
        assert kind != "[]" or "KeyError" in rest[0]


@pytest.mark.parametrize(("value", "problem"), [("", "is empty"), ("a\0b", "NUL")])
def test_paths_that_name_nothing_are_not_the_working_directory(value, problem, store, monkeypatch):
    monkeypatch.chdir(store.location)
    calls = (
        lambda: medalign.open_store(value),
        lambda: medalign.open_store(store.location, hash_key=value),
        lambda: medalign.Manifest.read(value),
        lambda: store.for_image(value),
        lambda: medalign.load_teacher("phantom-tiny", value),
        lambda: medalign.load_student(value),
        lambda: medalign.extract(value, teacher="phantom-tiny", weights="w", images="i"),
        lambda: local_path("out", value),
    )
    for call in calls:
        with pytest.raises(MedalignError, match=problem):
            call()


@pytest.mark.parametrize("number", [0, -1])
def test_counts_start_at_one(number):
    for given in (number, (number,)):
        with pytest.raises(SettingsError, match=f"limit must be at least 1, got {number}"):
            check_positive(limit=given)
    check_positive(limit=None, batch_size=(np.int64(3),))


def test_none_is_a_choice_only_where_it_is_listed():
    with pytest.raises(SettingsError, match="geometry: None is not one of pad, crop"):
        check_choices(geometry=(None, ("pad", "crop")))
    check_choices(geometry=(None, ("pad", "crop", None)))


def test_a_folder_is_not_called_missing(tmp_path):
    with pytest.raises(InputError, match=r"is a folder, not a manifest"):
        medalign.Manifest.read(tmp_path)
    with pytest.raises(InputError, match=r"is a folder, not a key"):
        medalign.open_store("s.zarr", hash_key=tmp_path)


@pytest.mark.parametrize("call", ["extract", "train", "evaluate", "compare"])
def test_no_output_is_written_into_a_store(call, store):
    """As the commands refuse `--out` there; the store would contain files that it does not list."""
    inside, before = f"{store.location}/results", sorted(Path(store.location).rglob("*"))
    arguments = {
        "extract": lambda: medalign.extract(inside, teacher="phantom-tiny", weights="w", images="i"),
        "train": lambda: medalign.train({}, inside),
        "evaluate": lambda: medalign.evaluate("student", "manifest.parquet", inside),
        "compare": lambda: medalign.compare({}, inside),
    }
    with pytest.raises(SettingsError, match=r"out: .*/results is inside the teacher store"):
        arguments[call]()
    assert sorted(Path(store.location).rglob("*")) == before


@pytest.mark.parametrize("tolerance", [float("nan"), float("inf"), 0.0, -1.0])
def test_a_tolerance_is_a_finite_number(tolerance, tmp_path):
    with pytest.raises(SettingsError, match="--tolerance must be above 0 and finite"):
        medalign.extract(tmp_path / "s.zarr", teacher="phantom-tiny", weights="w", images=tmp_path, tolerance=tolerance)


def test_a_folder_and_a_packed_store_are_told_apart(store, tmp_path):
    file = tmp_path / "a b.zip"
    file.write_bytes(b"PK")
    with pytest.raises(InputError, match=r"is a folder, not a packed store; `medalign store pull .* copies"):
        unpack(Path(store.location), tmp_path / "u.zarr", progress=Silent())
    with pytest.raises(StoreError, match=r"is a file, not a store; `medalign store unpack '.*a b\.zip' --out"):
        pull(str(file), tmp_path / "p.zarr", progress=Silent())
    assert list(tmp_path.iterdir()) == [file]
