"""What the root digest covers: forgeries with matching file digests, in both formats."""

import shutil
from pathlib import Path

import pytest
from forgeries import (
    FORGERIES,
    edit_header,
    edit_summary,
    forge,
    rewrite_manifest,
    root_by_the_page,
    root_of_version_1,
    version_1_store,
)
from medalign.errors import StoreError
from medalign.progress import Silent
from medalign.teacher_cache.extraction.stage_one import finish
from medalign.teacher_cache.extraction.store_repair import repair
from medalign.teacher_cache.sharing.merge import merge
from medalign.teacher_cache.sharing.pack import pack
from medalign.teacher_cache.sharing.pull import pull
from medalign.teacher_cache.sharing.push import push
from medalign.teacher_cache.sharing.subset import Wanted, subset
from medalign.teacher_cache.sharing.unpack import unpack
from medalign.teacher_cache.store import DamagedStore, StoreHeader, open_store
from medalign.teacher_cache.store.checking.unaltered import require_root
from medalign.teacher_cache.store.checking.verification import verify
from medalign.teacher_cache.store.reading.root_digest import RootRow, root_digest
from medalign.teacher_cache.store.store_errors import AlteredStore
from stores import name_of, store_header, write_store

STATED = {"title": "Chests of phantoms", "licence": "CC-BY-4.0", "data_use": "private", "tolerance": 0.5}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """Like the store of format 1: three shards, one of them in float32, an image and a file without a row."""
    return write_store(
        tmp_path_factory.mktemp("roots") / "s.zarr",
        range(6),
        failing=[2],
        wide={1: "float32"},
        unreadable=["a pipe, not a regular file"],
        shard_rows=2,
        **STATED,
    )


@pytest.fixture
def copy(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "copy.zarr"))


def test_the_root_digest_matches_the_documentation(whole, tmp_path):
    assert verify(whole).root_sha256 == open_store(whole).root_sha256 == root_by_the_page(whole)
    old = version_1_store(tmp_path / "old.zarr")
    assert verify(old).root_sha256 == open_store(old).root_sha256 == root_of_version_1(old)


def test_rows_mean_the_same_in_both_formats(whole, tmp_path):
    assert open_store(version_1_store(tmp_path / "old.zarr")).fingerprint == open_store(whole).fingerprint


def test_every_header_field_is_covered_or_documented():
    header = store_header(range(2), **STATED)
    page = (Path(__file__).parents[4] / "docs" / "store-format.md").read_text()
    rows = [RootRow("a", "b", 1, 2, "float16", "0" * 8, "c")]
    known = root_digest(header, rows, [], [])
    changed = {
        "teacher": "other", "weights_sha256": "1" * 64, "features": "final-norm", "dtype": "bfloat16",
        "geometry": "crop", "grid": header.native_grid, "native_grid": header.grid, "profile": "int8", "width": 9,
        "image_size": 97,
        "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "hashing": "hmac-sha256:" + "0" * 16, "format_version": 1,
        "tolerance": None, "data_use": "public", "title": None, "licence": None, "jpeg_scale": "reduced",
    }  # fmt: skip
    for name, value in changed.items():
        assert root_digest(header.model_copy(update={name: value}), rows, [], []) != known, name
    left_out = set(StoreHeader.model_fields) - set(changed) - {"interpolation"}  # it has only one possible value
    assert left_out == {"segments", "shard_rows", "plan_sha256", "batch_size", "threads", "created_by"}
    (line,) = [line for line in page.splitlines() if line.startswith("Not under the root digest")]
    assert all(f"`{name}`" in line for name in left_out)


@pytest.mark.parametrize("field", range(len(RootRow._fields)))
def test_the_root_digest_covers_every_field_of_a_row(field):
    header = store_header(range(2))
    row = RootRow("a", "b", 1, 2, "float16", "0" * 8, "c")
    other = row._replace(**{RootRow._fields[field]: 3 if isinstance(row[field], int) else "d"})
    assert root_digest(header, [row], [], []) != root_digest(header, [other], [], [])


def test_order_does_not_matter_and_entry_kinds_are_distinct():
    header = store_header(range(2))
    one, two = RootRow("a", "p", 1, 2, "float16", "0" * 8, "c"), RootRow("b", "q", 1, 2, "int8", "1" * 8, "d")
    known = root_digest(header, [one, two], [("e", "x"), ("f", "y")], ["u", "v"])
    assert known == root_digest(header, [two, one], [("f", "y"), ("e", "x")], ["v", "u"])
    others = [
        root_digest(header, [one], [("e", "x"), ("f", "y")], ["u", "v"]),
        root_digest(header, [one, two], [("e", "y"), ("f", "x")], ["u", "v"]),
        root_digest(header, [one, two], [("e", 'x"\nf failed "y')], ["u", "v"]),
        root_digest(header, [one, two], [("e", "x"), ("f", "y")], ['u"\nunreadable "v']),
        root_digest(header, [one, two], [("e", "x"), ("f", "y")], ["u", "v", "v"]),
        root_digest(header.model_copy(update={"title": "t\n"}), [one, two], [("e", "x"), ("f", "y")], ["u", "v"]),
    ]
    assert len({known, *others}) == 7


@pytest.mark.parametrize("name", FORGERIES)
def test_forgeries_with_matching_digests_are_rejected(copy, name):
    """`verify` reports only a wrong root digest, and repair refuses to hide it."""
    claimed = open_store(copy).root_sha256
    forge(copy, name)
    report = verify(copy)
    (problem,) = [problem for problem in report.problems if problem.key == "index.parquet"]
    assert (problem.kind, report.root_sha256, report.claimed_root_sha256) == ("root", None, claimed)
    assert f"its root digest {claimed} does not match header and ledger" in problem.what
    assert {problem.kind for problem in report.problems} == {"root"}
    before = {file: file.read_bytes() for file in copy.rglob("*") if file.is_file()}
    with pytest.raises(AlteredStore, match=r"was not repaired: .*Get the store again"):
        repair(copy)
    with pytest.raises(AlteredStore, match="does not match its root digest"):
        finish(copy)
    assert {file: file.read_bytes() for file in copy.rglob("*") if file.is_file()} == before


@pytest.mark.parametrize("name", FORGERIES)
def test_format_1_does_not_detect_these_forgeries(tmp_path, name):
    """The reason for format 2. Only the card shows these changes, if the same version wrote it."""
    store = forge(version_1_store(tmp_path / "old.zarr"), name)
    report = verify(store)
    assert (report.ok, report.root_sha256) == (True, report.claimed_root_sha256)


@pytest.mark.parametrize("name", ["exchanged pixel hashes", "private to public", "reasons"])
def test_every_command_rejects_forgeries(copy, whole, tmp_path, name):
    packed = tmp_path / "s.zip"
    forge(copy, name)
    doors = {
        "push": lambda: push(copy, str(tmp_path / "there"), allow="private", progress=Silent()),
        "pack": lambda: pack(copy, packed, allow="private", progress=Silent()),
        "pull": lambda: pull(str(copy), tmp_path / "out.zarr", progress=Silent()),
        "merge": lambda: merge([str(whole), str(copy)], tmp_path / "out.zarr", progress=Silent()),
        "subset": lambda: subset(str(copy), tmp_path / "out.zarr", [Wanted(image_hash=name_of(0))], progress=Silent()),
    }
    for door, enter in doors.items():
        with pytest.raises(AlteredStore, match="was changed after it was finished"):
            enter()
        assert not (tmp_path / "out.zarr").exists(), door
        assert not packed.exists(), door
        assert not (tmp_path / "there").exists(), door


def test_a_packed_forgery_is_not_unpacked(copy, tmp_path, monkeypatch):
    forge(copy, "private to public")
    with monkeypatch.context() as patch:  # an accomplice's medalign packs it
        patch.setattr("medalign.teacher_cache.sharing.listed_files.require_unaltered", open_store)
        pack(copy, tmp_path / "s.zip", allow=None, progress=Silent())
    with pytest.raises(AlteredStore, match="was changed after it was finished"):
        unpack(tmp_path / "s.zip", tmp_path / "out.zarr", progress=Silent())
    assert [file.name for file in tmp_path.iterdir()] == ["copy.zarr", "s.zip"] or not (tmp_path / "out.zarr").exists()


def test_a_ledger_that_contradicts_the_index_is_rejected(copy, tmp_path):
    """The index is unchanged, so readers get correct data, but an extension would be written from the ledger."""
    index = (copy / "index.parquet").read_bytes()
    FORGERIES["exchanged pixel hashes"](copy)
    (copy / "index.parquet").write_bytes(index)
    rewrite_manifest(copy)
    require_root(open_store(copy))
    with pytest.raises(AlteredStore, match="but its ledger has"):
        push(copy, str(tmp_path / "there"), allow="private", progress=Silent())
    assert "root" in {problem.kind for problem in verify(copy).problems}


def test_a_forged_root_digest_does_not_match_the_published_one(copy):
    published = open_store(copy).root_sha256
    FORGERIES["private to public"](copy)
    root = root_by_the_page(copy)
    edit_summary(copy, lambda summary: summary.update(root_sha256=root))
    rewrite_manifest(copy)
    assert verify(copy).ok, "nothing inside the store contradicts it"
    (problem,) = verify(copy, expected_root=published).problems
    assert (problem.kind, problem.what) == ("other root", f"the root digest is {root}, not the expected {published}")
    assert verify(copy, expected_root=root).ok


def test_accidental_damage_is_not_reported_as_forgery(copy, tmp_path):
    """A flipped bit in the index's summary, which no Parquet checksum covers, or in a pixel hash of the ledger."""
    index = (copy / "index.parquet").read_bytes()
    edit_summary(copy, lambda summary: summary.update(root_sha256="0" * 64))
    for harm in ("index", "ledger"):
        with pytest.raises(DamagedStore, match=r"is damaged: its SHA-256 is .*`medalign store repair"):
            push(copy, str(tmp_path / "there"), allow="private", progress=Silent())
        if harm == "index":
            (copy / "index.parquet").write_bytes(index)
            record = copy / "ledger/000000.json"
            record.write_text(record.read_text().replace('"width":30', '"width":31'))
    assert {problem.kind for problem in verify(copy).problems} == {"record"}


def test_accidental_damage_to_the_stored_root_digest_is_repaired(copy, whole):
    """The manifest shows that the index has changed."""
    edit_summary(copy, lambda summary: summary.update(root_sha256="0" * 64))
    report = repair(copy)
    assert not report.left
    assert report.root_after == open_store(whole).root_sha256 == open_store(copy).root_sha256


def test_repair_does_not_choose_between_changed_headers(copy):
    """The other copy still says private; both files match the manifest."""
    index = (copy / "index.parquet").read_bytes()
    edit_header(copy, data_use="public")
    (copy / "index.parquet").write_bytes(index)
    rewrite_manifest(copy)
    assert not verify(copy).ok
    for attempt in (repair, finish, open_store):
        with pytest.raises(StoreError):
            attempt(copy)


@pytest.mark.parametrize("name", ["exchanged pixel hashes", "private to public"])
@pytest.mark.parametrize("index", ["junk", "gone"])
def test_a_forgery_with_an_unreadable_index_is_not_repaired(copy, name, index):
    """The index has the root digest: an unreadable index that matches the manifest is not accidental damage."""
    FORGERIES[name](copy)
    if index == "junk":
        (copy / "index.parquet").write_bytes(b"junk")
    else:
        (copy / "index.parquet").unlink()
    rewrite_manifest(copy)
    report = verify(copy)
    assert "root" in {problem.kind for problem in report.problems}
    with pytest.raises(AlteredStore, match="was not repaired"):
        repair(copy)


def test_a_lost_root_digest_is_not_made_up(copy):
    (copy / "index.parquet").write_bytes(b"junk")
    report = repair(copy)
    assert report.root_before is None
    assert report.left == ()
