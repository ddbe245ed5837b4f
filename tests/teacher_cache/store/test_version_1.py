"""Stores of format 1 are read and verified with a note about their root digest, and converted only on request."""

from pathlib import Path

import pyarrow as pa
import pytest
import torch
from forgeries import edit_header, rewrite_manifest, root_by_the_page, version_1_store
from harms import contents
from medalign.errors import StoreError
from medalign.pipeline.stores.verify import verify_store
from medalign.progress import Silent
from medalign.teacher_cache.extraction.stage_one import finish
from medalign.teacher_cache.extraction.store_repair import repair
from medalign.teacher_cache.sharing.merge import merge
from medalign.teacher_cache.sharing.subset import Wanted, subset
from medalign.teacher_cache.store import UnfinishedStore, open_store
from medalign.teacher_cache.store.checking.format_conversion import convert
from medalign.teacher_cache.store.checking.verification import verify
from medalign.teacher_cache.store.records.zarr_metadata import read_header
from medalign.teacher_cache.store.writing.writer import StoreWriter
from stores import name_of, pixels_of, store_header, write_store

GOOD = [0, 1, 3, 4, 5]
ROOT = "4699361fcaec1e94fc3313d8d6ce4b791f7b9f2d943d9f6f7c9a1446b5acc34a"
"""The root digest that the last writer of format 1 printed."""


class Notes(Silent):
    """Collects notes."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)


@pytest.fixture
def old(tmp_path) -> Path:
    return version_1_store(tmp_path / "old.zarr")


@pytest.fixture(scope="module")
def same(tmp_path_factory) -> Path:
    """The same content, written in format 2."""
    about = {
        "title": "Chests of phantoms",
        "licence": "CC-BY-4.0",
        "data_use": "private",
        "created_by": "medalign 0.1.0",
    }
    reasons = {"failing": [2], "unreadable": ["a pipe, not a regular file"]}
    out = tmp_path_factory.mktemp("same") / "s.zarr"
    return write_store(out, range(6), wide={1: "float32"}, shard_rows=2, **reasons, **about)


def test_format_1_opens_and_reads_unchanged(old, same):
    store, twin = open_store(old), open_store(same)
    assert (store.header.format_version, twin.header.format_version, store.root_sha256) == (1, 2, ROOT)
    assert store.fingerprint == twin.fingerprint
    for image in GOOD:
        assert torch.equal(store[name_of(image)].E_v, twin[name_of(image)].E_v)
        assert store.row("0" * 64, pixels_of(image)) == store.row(name_of(image))
    assert store.failures == {name_of(2): "no image"}


def test_format_1_is_verified_with_its_own_root_digest(old):
    report = verify(old)
    assert (report.ok, report.root_sha256, report.header.format_version) == (True, ROOT, 1)


def test_a_converted_store_equals_one_written_in_format_2(old, same):
    before = {key: data for key, data in contents(old).items() if "/" in key}
    report = convert(old)
    assert (report.format_version_before, report.format_version) == (1, 2)
    assert (report.root_sha256_before, report.root_sha256) == (ROOT, open_store(same).root_sha256)
    assert verify(old).root_sha256 == open_store(old).root_sha256 == root_by_the_page(old)
    after = contents(old)
    assert {key: data for key, data in after.items() if "/" in key} == before, "shards, ledger and arrays stay"
    assert set(after) == set(contents(same))
    again = convert(old)
    assert (again.format_version_before, again.root_sha256) == (2, report.root_sha256)
    assert contents(old) == after


def test_an_interrupted_conversion_is_reported_with_advice(old, monkeypatch):
    monkeypatch.setattr(
        "medalign.teacher_cache.store.checking.format_conversion.close_store", lambda path, header: None
    )
    monkeypatch.setattr("medalign.teacher_cache.store.checking.format_conversion.ledger_root", lambda *_: "0" * 64)
    convert(old)
    with pytest.raises(
        UnfinishedStore, match=r"the conversion of .* to format 2 was interrupted: run `medalign store convert"
    ):
        open_store(old)


@pytest.mark.parametrize("written", ["zarr.json", "failures.parquet", "index.parquet", "README.md"])
def test_verify_advises_completing_a_conversion(old, monkeypatch, written):
    """For each file that may have been written last before the kill."""
    with monkeypatch.context() as patch:
        kill_after(patch, written)
        with pytest.raises(KeyboardInterrupt):
            convert(old)
    with pytest.raises(StoreError, match=r"A conversion was interrupted; `medalign store convert .*` completes it"):
        verify_store(str(old), Silent()).raise_for_problems()
    convert(old)
    verify_store(str(old), Silent()).raise_for_problems()
    data = bytearray((old / "ledger/000001.json").read_bytes())
    data[9] ^= 1
    (old / "ledger/000001.json").write_bytes(data)
    assert not verify(old).conversion_interrupted


def kill_after(patch: pytest.MonkeyPatch, name: str) -> None:
    """Simulate a kill right after a top-level file of a store has been replaced."""
    rename = Path.replace

    def replaced(path: Path, target: Path) -> Path:
        rename(path, target)
        if Path(target).name == name and Path(target).parent.name == "old.zarr":
            raise KeyboardInterrupt
        return Path(target)

    patch.setattr(Path, "replace", replaced)


def test_damaged_and_unfinished_stores_are_not_converted(old, same, tmp_path):
    data = bytearray((old / "ledger/000001.json").read_bytes())
    data[40] ^= 1
    (old / "ledger/000001.json").write_bytes(data)
    before = contents(old)
    with pytest.raises(StoreError, match=r"cannot be converted: ledger/000001\.json"):
        convert(old)
    assert contents(old) == before
    (old / "manifest-sha256.txt").unlink()
    with pytest.raises(StoreError, match="cannot be converted"):
        convert(old)
    altered = version_1_store(tmp_path / "altered.zarr")
    index = (altered / "index.parquet").read_bytes()
    edit_header(altered, format_version=2, data_use="public")  # in one place only, as if a conversion had started
    (altered / "index.parquet").write_bytes(index)
    with pytest.raises(StoreError, match="cannot be converted"):
        convert(altered)
    assert open_store(same).header.format_version == 2


def test_repair_keeps_the_format_and_reports_what_it_lacks(old):
    (old / "index.parquet").unlink()
    notes = Notes()
    report = repair(old, progress=notes)
    assert (report.left, report.root_after) == ((), ROOT)
    assert read_header(old).format_version == 1
    assert verify(old).root_sha256 == ROOT
    assert len(notes.texts) == 1
    assert "has format 1, whose root digest does not cover pixel hashes" in notes.texts[0]
    assert finish(old) == ROOT


def test_every_damage_to_a_small_file_is_repaired_in_format_1(old):
    """One damage of each kind to each file; test_damage.py has the others, in format 2."""
    original = contents(old)
    same_pyarrow = (
        f"version {pa.__version__}".encode() in original["index.parquet"]
    )  # only the same version writes the same bytes
    for key in [key for key in original if "/c/" not in key and key != "README.md"]:
        data = bytearray(original[key])
        data[len(data) // 2] ^= 4
        (old / key).write_bytes(data)
        report = repair(old)
        assert report.found, key  # what `verify` finds
        assert (report.left, report.root_after) == ((), ROOT), key
        assert contents(old).keys() == original.keys()
        if same_pyarrow:
            (old / "README.md").write_bytes(original["README.md"])  # this version renders a different card
            (old / "manifest-sha256.txt").write_bytes(original["manifest-sha256.txt"])
            assert contents(old) == original, key
    assert verify(old).root_sha256 == ROOT


def test_copies_have_format_2_and_report_unverified_fields(old, same, tmp_path):
    notes = Notes()
    other = write_store(tmp_path / "o.zarr", range(7, 9))
    merge([str(old), str(other)], tmp_path / "m.zarr", progress=notes)
    merged = open_store(tmp_path / "m.zarr")
    assert (merged.header.format_version, merged.header.data_use, len(merged)) == (2, "private", 7)
    assert [text.startswith(f"{old} has format 1") for text in notes.texts if "the sources state" not in text] == [True]
    assert "takes these fields unverified from" in notes.texts[0]
    subset(str(old), tmp_path / "s.zarr", [Wanted(image_hash=name_of(3))], progress=Silent())
    assert read_header(tmp_path / "s.zarr").format_version == 2
    assert verify(tmp_path / "m.zarr").ok
    assert verify(tmp_path / "s.zarr").ok


def test_a_copy_started_by_an_earlier_version_keeps_its_format(tmp_path):
    out = tmp_path / "s.zarr"
    header = store_header(range(2), format_version=1)
    StoreWriter.create(out, header, [name_of(image) for image in range(2)])
    writer = StoreWriter.resume(out, store_header(range(2)))
    assert writer.header == header


def test_an_altered_store_of_format_1_is_rejected_if_its_root_digest_differs(old, tmp_path):
    """The root digest of format 1 covers rows."""
    from forgeries import edit_images

    def exchange(images):
        images[0]["image_hash"], images[1]["image_hash"] = images[1]["image_hash"], images[0]["image_hash"]

    edit_images(old, exchange)
    rewrite_manifest(old)
    assert "root" in {problem.kind for problem in verify(old).problems}
    with pytest.raises(StoreError, match="was changed after it was finished"):
        subset(str(old), tmp_path / "s.zarr", [Wanted(image_hash=name_of(3))], progress=Silent())
