"""Mutated small files, with new digests or not: clean errors or correct rows, no traceback, bounded time and memory.

`python tests/teacher_cache/store/test_fuzz.py SEED NUMBER [KIND ...]` runs more than the suite's sample.
"""

import hashlib
import random
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from medalign.errors import MedalignError
from medalign.pipeline.stores.verify import describe_store
from medalign.progress import Silent
from medalign.teacher_cache.extraction.store_repair import repair
from medalign.teacher_cache.sharing.pack import pack
from medalign.teacher_cache.sharing.push import push
from medalign.teacher_cache.sharing.unpack import unpack
from medalign.teacher_cache.store import open_store
from medalign.teacher_cache.store.checking.signing import sign
from medalign.teacher_cache.store.checking.verification import verify
from medalign.teacher_cache.store.file_names import MANIFEST_FILE
from medalign.teacher_cache.store.records.digest_list import stored_files
from medalign.teacher_cache.store.signatures.signing_keys import SigningKey
from mutations import flipped, mutate
from stores import name_of, write_store

IMAGES, FAILING = range(6), (4,)
KINDS = {
    "zarr.json": "json",
    "E_v/zarr.json": "json",
    "wide/zarr.json": "json",
    "ledger/000001.json": "json",
    "ledger/unreadable.json": "json",
    "index.parquet": "parquet",
    "failures.parquet": "parquet",
    "signature.json": "json",
    MANIFEST_FILE: "manifest",
}
EACH = 12
"""Mutations of each file in the suite."""
SECONDS = 20.0
"""Maximum seconds of a single operation, on a busy machine."""


@dataclass
class Tally:
    """Results of a sweep."""

    runs: int = 0
    found: int = 0
    """Number of mutations that `verify` or unpacking detected."""
    errors: Counter[str] = field(default_factory=Counter)
    tracebacks: list[str] = field(default_factory=list)
    wrong_and_verified: list[str] = field(default_factory=list)
    longest: float = 0.0


def make_store(folder: Path) -> Path:
    """A signed store of three shards, one in a wider profile, one with a failure."""
    store = write_store(
        folder / "s.zarr", IMAGES, failing=FAILING, wide={2: "float32"}, unreadable=["a pipe"], shard_rows=2
    )
    sign(store, SigningKey(Ed25519PrivateKey.from_private_bytes(bytes(32))))
    return store


def sign_again(store: Path) -> None:
    """Rewrite the manifest with the new digests, as a forger would."""
    lines = [f"{hashlib.sha256((store / key).read_bytes()).hexdigest()}  {key}\n" for key in stored_files(store)]
    (store / MANIFEST_FILE).write_text("".join(lines))


def try_all(store: Path, truth: dict[str, torch.Tensor], tally: Tally, what: str, *, also: int) -> None:
    """Run every command that reads a store; `also` selects one that copies or changes it."""
    wrong = tally_of(tally, what, lambda: wrong_rows(store, truth))
    report = tally_of(tally, what, lambda: verify(store, quick=also % 4 != 0))
    tally.found += report is None or not report.ok
    if wrong and report is not None and report.ok:
        tally.wrong_and_verified.append(f"{what}: {wrong}")
    tally_of(tally, what, lambda: describe_store(str(store)))
    copy = store.with_name("copy")
    shutil.rmtree(copy, ignore_errors=True)
    if also % 8 == 1:
        tally_of(tally, what, lambda: push(store, str(copy), allow=None, progress=Silent()))
    elif also % 8 == 2:
        tally_of(tally, what, lambda: repair(Path(shutil.copytree(store, copy))))


def wrong_rows(store: Path, truth: dict[str, torch.Tensor]) -> list[str]:
    opened = open_store(store)
    list(opened)
    opened.index_columns(["image_hash", "sha256", "width"])
    opened.position("0" * 64, "0" * 64)  # reads the other column too
    wrong = []
    for name, expected in truth.items():
        try:
            if not torch.equal(opened[name].E_v, expected):
                wrong.append(name)
        except MedalignError:
            pass
    return wrong


def tally_of(tally: Tally, what: str, work: Callable[[], Any]) -> Any:
    started = time.perf_counter()
    try:
        return work()
    except MedalignError as error:
        tally.errors[type(error).__name__] += 1
        if len(str(error)) > 6000:
            tally.tracebacks.append(f"{what}: a message of {len(str(error))} characters")
    except Exception as error:
        tally.tracebacks.append(f"{what}: {type(error).__name__}: {str(error)[:200]}")
    finally:
        tally.longest = max(tally.longest, time.perf_counter() - started)
    return None


def sweep(whole: Path, folder: Path, seed: int, number: int, keys: list[str]) -> Tally:
    """`number` mutations of each file, every second one re-signed."""
    tally, store = Tally(), Path(shutil.copytree(whole, folder / "fuzzed.zarr"))
    opened = open_store(whole)
    truth = {name_of(image): opened[name_of(image)].E_v for image in IMAGES if image not in FAILING}
    manifest = (whole / MANIFEST_FILE).read_bytes()
    for key in keys:
        data, draw = (whole / key).read_bytes(), random.Random(f"{seed} {key}")
        for turn in range(number):
            (store / key).write_bytes(mutate(KINDS[key], data, draw))
            if turn % 2 and key != MANIFEST_FILE:
                sign_again(store)
            try_all(store, truth, tally, f"{key}, mutation {turn}", also=turn // 2)
            (store / key).write_bytes(data)
            (store / MANIFEST_FILE).write_bytes(manifest)
            tally.runs += 1
    return tally


def sweep_flips(whole: Path, folder: Path, key: str, bits: range) -> Tally:
    """Single bits of a file."""
    tally, store = Tally(), Path(shutil.copytree(whole, folder / "flipped.zarr"))
    opened, data = open_store(whole), (whole / key).read_bytes()
    truth = {name_of(image): opened[name_of(image)].E_v for image in IMAGES if image not in FAILING}
    for bit in bits:
        (store / key).write_bytes(flipped(data, bit))
        if tally_of(tally, f"{key}, bit {bit}", lambda: wrong_rows(store, truth)):
            tally.wrong_and_verified.append(f"{key}, bit {bit}: another row was read")
        if bit % 5 == 0:  # a read uses the same parts, and takes a fifth of the time
            report = tally_of(tally, f"{key}, bit {bit}", lambda: verify(store, quick=True))
            tally.found += report is None or not report.ok
        tally.runs += 1
    return tally


def sweep_zip(whole: Path, folder: Path, seed: int, number: int) -> Tally:
    """Mutations of a packed store."""
    tally, packed, draw = Tally(), folder / "s.zip", random.Random(seed)
    pack(whole, packed, allow=None, progress=Silent())
    data, files = packed.read_bytes(), {key: (whole / key).read_bytes() for key in stored_files(whole)}
    out = folder / "out"
    for turn in range(number):
        packed.write_bytes(mutate("zip", data, draw))
        done = tally_of(tally, f"zip, mutation {turn}", lambda: unpack(packed, out, progress=Silent()))
        tally.found += done is None
        if done is not None and {key: (out / key).read_bytes() for key in stored_files(out)} != files:
            tally.wrong_and_verified.append(f"zip, mutation {turn}: other files")
        shutil.rmtree(out, ignore_errors=True)
        tally.runs += 1
    return tally


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return make_store(tmp_path_factory.mktemp("fuzz"))


def check(tally: Tally) -> None:
    assert not tally.tracebacks
    assert not tally.wrong_and_verified
    assert tally.longest < SECONDS
    assert tally.runs
    assert tally.found >= tally.runs // 6


@pytest.mark.parametrize("key", KINDS)
def test_mutated_small_files_give_no_traceback_or_wrong_row(whole, memory_path, key):
    check(sweep(whole, memory_path, 12, EACH, [key]))


def test_flipped_bits_of_an_index_give_no_traceback_or_wrong_row(whole, memory_path):
    bits = 8 * (whole / "index.parquet").stat().st_size
    check(sweep_flips(whole, memory_path, "index.parquet", range(random.Random(3).randrange(997), bits, 997)))


def test_mutated_packed_stores_give_no_traceback(whole, memory_path):
    check(sweep_zip(whole, memory_path, 12, 40))


def _main(seed: int, number: int, keys: list[str]) -> None:
    import os
    import resource
    import tempfile

    os.fsync = lambda descriptor: None
    with tempfile.TemporaryDirectory() as made:
        whole = make_store(Path(made))
        for key in keys or [*KINDS, "flips", "zip"]:
            folder = Path(tempfile.mkdtemp(dir=made))
            started = time.perf_counter()
            if key == "flips":
                tally = sweep_flips(whole, folder, "index.parquet", range(8 * (whole / "index.parquet").stat().st_size))
            elif key == "zip":
                tally = sweep_zip(whole, folder, seed, number)
            else:
                tally = sweep(whole, folder, seed, number, [key])
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
            seconds = time.perf_counter() - started
            spent = f"{seconds:.0f} s, {tally.longest:.2f} s at most, {peak} MB"
            print(f"{key}: {tally.runs} runs, {spent}, {tally.found} found")
            print(f"  {dict(tally.errors)}, {len(tally.tracebacks)} tracebacks, wrong: {tally.wrong_and_verified[:3]}")
            print("\n".join(tally.tracebacks[:25]), flush=True)


if __name__ == "__main__":
    _main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
