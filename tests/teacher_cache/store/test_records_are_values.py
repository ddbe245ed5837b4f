"""Everything that a store says of itself is a value: it cannot be assigned, and takes no other field or type."""

import dataclasses
import importlib
import json
import pkgutil
from types import SimpleNamespace

import pytest
from medalign.teacher_cache import store as package
from medalign.teacher_cache.store.format.header import StoreHeader
from medalign.teacher_cache.store.records.index import IndexSummary, ShardEntry
from medalign.teacher_cache.store.records.ledger import FailureRecord, ImageRecord, ShardRecord, StoredFile
from medalign.teacher_cache.store.signatures.signature import Signature
from pydantic import BaseModel, ValidationError
from stores import name_of, store_header

FAILURE = {"row": 1, "image_hash": name_of(4), "reason": "no image"}
FILE = {"key": "E_v/c/0/0/0", "bytes": 9, "sha256": name_of(3)}
IMAGE = {"row": 0, "image_hash": name_of(1), "pixel_hash": name_of(2), "width": 9, "height": 8}
IMAGE |= {"max_abs_dS": 0.25, "crc32c": 1, "sha256": name_of(3)}
ENTRY = {"profile": "float16", "bytes": [9]}
SHARD = {"version": 1, "shard": 0, "profile": "float16", "files": [FILE], "content_sha256": name_of(5)}
HEADER = store_header(range(2)).model_dump(mode="json")
EXAMPLES: dict[type[BaseModel], dict[str, object]] = {
    StoreHeader: HEADER,
    ShardEntry: ENTRY,
    IndexSummary: {"fingerprint": name_of(1), "root_sha256": name_of(2), "shards": [ENTRY], "superseded": [FAILURE]}
    | {"header": HEADER},
    ImageRecord: IMAGE,
    FailureRecord: FAILURE,
    StoredFile: FILE,
    ShardRecord: SHARD | {"images": [IMAGE], "failures": [FAILURE]},
    Signature: {"algorithm": "ed25519", "public_key": "ssh-ed25519 AAAA", "signature": "AAAA", "statement": "{}"},
}


def wrong_types(value: object) -> list[object]:
    """Values of other types than this one, which Python or JSON may take for it."""
    kinds: dict[type, list[object]] = {
        int: [str(value), True],
        float: [str(value), True],
        str: [1, [value]],
        list: [1, "x", {}],
        dict: [1, []],
        type(None): [[], {}],
    }
    return kinds[type(value)] + ([float(value)] if type(value) is int else [])


def modules() -> list[str]:
    found = pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    return [module.name for module in found if not module.ispkg]


def classes() -> set[type]:
    """The classes that the modules of the store define."""
    loaded = [importlib.import_module(name) for name in modules()]
    return {
        value
        for module in loaded
        for value in vars(module).values()
        if isinstance(value, type) and value.__module__ == module.__name__
    }


def test_every_model_has_an_example():
    models = {value for value in classes() if issubclass(value, BaseModel) and value.model_fields}
    assert models == set(EXAMPLES)


@pytest.mark.parametrize("model", EXAMPLES, ids=lambda model: model.__name__)
def test_a_model_is_frozen_and_takes_neither_other_fields_nor_other_types(model):
    values = EXAMPLES[model]
    record = model.model_validate_json(json.dumps(values))
    for name in model.model_fields:
        with pytest.raises(ValidationError, match="frozen"):
            setattr(record, name, getattr(record, name))
    assert model.model_validate_json(json.dumps(values)) == record
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        model.model_validate_json(json.dumps(values | {"other": 1}))
    for name, value in values.items():
        for other in wrong_types(value):
            with pytest.raises(ValidationError, match=name):
                model.model_validate_json(json.dumps(values | {name: other}))


def test_every_dataclass_but_the_open_lock_file_is_frozen():
    found = {value for value in classes() if dataclasses.is_dataclass(value)}
    assert len(found) > 15
    free = []
    for value in found:
        empty = object.__new__(value)
        name = dataclasses.fields(value)[0].name
        try:
            setattr(empty, name, SimpleNamespace())
        except dataclasses.FrozenInstanceError:
            continue
        free.append(value.__name__)
    assert free == ["_OpenFile"]
