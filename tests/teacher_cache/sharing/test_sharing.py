"""Sharing stores: pack, push, pull, subset and merge; damaged, unexpected and forbidden content is rejected."""

import os
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from medalign.errors import InputError, SettingsError, StoreError
from medalign.progress import Silent
from medalign.teacher_cache.geometry.patch_grid import PatchGrid
from medalign.teacher_cache.sharing.data_use_gate import RESTRICTIVENESS
from medalign.teacher_cache.sharing.listed_files import check_names
from medalign.teacher_cache.sharing.merge import merge
from medalign.teacher_cache.sharing.pack import pack
from medalign.teacher_cache.sharing.pull import pull
from medalign.teacher_cache.sharing.push import MARKER, push
from medalign.teacher_cache.sharing.subset import Wanted, subset
from medalign.teacher_cache.sharing.unpack import unpack
from medalign.teacher_cache.store import DamagedStore, HashKey, MissingTeacherRow, UnfinishedStore, open_store
from medalign.teacher_cache.store.checking.verification import verify
from servers import FileServer, Nginx, requires_nginx, s3_bucket
from stores import name_of, pixels_of, write_store

QUIET = Silent()


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    """Eleven images in three shards, one of them in a wider profile; one image failed."""
    return write_store(
        tmp_path_factory.mktemp("lab") / "s.zarr", range(11), failing=[9], wide={1: "float32"}, title="Lab"
    )


@pytest.fixture
def copy(store, tmp_path) -> Path:
    return Path(shutil.copytree(store, tmp_path / "copy.zarr"))


@pytest.fixture(scope="module")
def bucket():
    with s3_bucket("lab") as client:
        yield client


def contents(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def objects(client, prefix: str) -> dict[str, bytes]:
    listed = client.list_objects_v2(Bucket="lab", Prefix=prefix).get("Contents", [])
    return {
        item["Key"].removeprefix(prefix): client.get_object(Bucket="lab", Key=item["Key"])["Body"].read()
        for item in listed
    }


def flip(file: Path, position: int = 5) -> None:
    data = bytearray(file.read_bytes())
    data[position] ^= 1
    file.write_bytes(data)


# ---- one file


def test_packing_and_unpacking_gives_the_same_store(store, copy, tmp_path):
    first = pack(store, tmp_path / "a.zip", allow=None, progress=QUIET)
    os.utime(copy / "zarr.json", (1, 1))
    (copy / "zarr.json").chmod(0o600)
    second = pack(copy, tmp_path / "b.zip", allow=None, progress=QUIET)
    assert first.sha256 == second.sha256, "equal stores give equal files"
    report = unpack(tmp_path / "a.zip", tmp_path / "out.zarr", progress=QUIET)
    assert contents(tmp_path / "out.zarr") == contents(store)
    assert (report.claimed_root_sha256, report.files) == (open_store(store).root_sha256, first.files)
    assert zipfile.ZipFile(tmp_path / "a.zip").namelist()[-1] == "manifest-sha256.txt"
    for work in (
        lambda: pack(store, tmp_path / "a.zip", allow=None, progress=QUIET),
        lambda: unpack(tmp_path / "a.zip", tmp_path / "out.zarr", progress=QUIET),
    ):
        with pytest.raises(StoreError, match="exists: choose another"):
            work()


def test_stock_zarr_reads_a_packed_store(store, tmp_path):
    pack(store, tmp_path / "a.zip", allow=None, progress=QUIET)
    with zarr.storage.ZipStore(tmp_path / "a.zip", mode="r") as opened:
        group = zarr.open_group(opened, mode="r")
        row = torch.from_numpy(group["E_v"][2]).float()
    assert torch.equal(row, open_store(store)[name_of(2)].E_v)


@pytest.mark.parametrize("key", ["E_v/c/0/0/0", "wide/float32/E_v/c/1/0/0", "README.md", "ledger/000000.json"])
def test_a_damaged_store_is_not_packed(copy, tmp_path, key):
    flip(copy / key)
    with pytest.raises(DamagedStore, match=f"{key} is damaged: its SHA-256"):
        pack(copy, tmp_path / "a.zip", allow=None, progress=QUIET)
    (copy / key).unlink()
    with pytest.raises(DamagedStore, match=f"{key} is missing"):
        pack(copy, tmp_path / "a.zip", allow=None, progress=QUIET)
    assert [file.name for file in tmp_path.iterdir()] == ["copy.zarr"]


def test_an_unfinished_store_cannot_be_shared(copy, tmp_path):
    (copy / "manifest-sha256.txt").unlink()
    with pytest.raises(UnfinishedStore):
        pack(copy, tmp_path / "a.zip", allow=None, progress=QUIET)
    with pytest.raises(UnfinishedStore):
        push(copy, str(tmp_path / "out.zarr"), allow=None, progress=QUIET)
    with pytest.raises(UnfinishedStore, match="is not a finished store"):
        pull(str(copy), tmp_path / "out.zarr", progress=QUIET)
    assert [file.name for file in tmp_path.iterdir()] == ["copy.zarr"]


def repacked(source: Path, target: Path, change) -> Path:
    """A packed store whose members, a list of (ZipInfo, data), were modified by `change`."""
    with zipfile.ZipFile(source) as archive:
        members = [(info, archive.read(info)) for info in archive.infolist()]
    with zipfile.ZipFile(target, "w") as archive:
        for info, data in change(members):
            archive.writestr(info, data, info.compress_type)
    return target


def extra(name: str, data: bytes = b"evil", **fields: object):
    def change(members):
        member = zipfile.ZipInfo(name)
        for field, value in fields.items():
            setattr(member, field, value)
        return [*members, (member, data)]

    return change


def compressed(members):
    members[0][0].compress_type = zipfile.ZIP_DEFLATED
    return members


def damaged(members):
    return [(info, data[:-1] + b"?" if info.filename == "E_a/c/0/0" else data) for info, data in members]


def listed_too(name: str):
    """The manifest also lists the unexpected member."""

    def change(members):
        *others, (info, manifest) = extra(name)(members)[:-1]
        digest = "0" * 64
        lines = sorted([*manifest.decode().splitlines(), f"{digest}  {name}"], key=lambda line: line[66:])
        return [*others, extra(name)([])[0], (info, "".join(f"{line}\n" for line in lines).encode())]

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (extra("../evil"), r"do not match its manifest; first: '\.\./evil'"),
        (extra("/etc/evil"), "do not match its manifest"),
        (extra("notes.txt"), r"do not match its manifest; first: 'notes\.txt'"),
        (extra("link", external_attr=0o120777 << 16), "'link' is not a regular file"),
        (extra("folder/", b""), "'folder/' is not a regular file"),
        (compressed, "is compressed"),
        (lambda members: members[1:], "do not match its manifest"),
        (lambda members: members[:-1], r"does not contain exactly one manifest-sha256\.txt"),
        (damaged, r"its SHA-256 is .* for E_a/c/0/0"),
        (listed_too("../evil"), r"lists '\.\./evil', which is not a valid name in a store"),
        (listed_too("/etc/evil"), "is not a valid name in a store"),
        (listed_too("ledger/.hidden"), "is not a valid name in a store"),
        (listed_too("zarr.json/x"), r"lists 'zarr\.json/x', which is below another file"),
    ],
)
def test_unpack_rejects_what_pack_never_writes(store, tmp_path, change, message):
    pack(store, tmp_path / "good.zip", allow=None, progress=QUIET)
    bad = repacked(tmp_path / "good.zip", tmp_path / "bad.zip", change)
    with pytest.raises((InputError, StoreError), match=message):
        unpack(bad, tmp_path / "in" / "out.zarr", progress=QUIET)
    assert not list((tmp_path / "in").glob("*"))
    assert sorted(file.name for file in tmp_path.iterdir()) in (["bad.zip", "good.zip"], ["bad.zip", "good.zip", "in"])


def test_a_huge_list_of_members_is_not_read(tmp_path, monkeypatch):
    """zipfile reads it at once, regardless of its stated length."""
    with zipfile.ZipFile(tmp_path / "many.zip", "w") as archive:
        for number in range(2000):
            archive.writestr(f"{number:0200}", b"")
    monkeypatch.setattr("medalign.teacher_cache.sharing.unpack._LARGEST_LIST", 400_000)
    with pytest.raises(InputError, match=r"many\.zip is not a packed store: its list of members has \d{6} bytes"):
        unpack(tmp_path / "many.zip", tmp_path / "out.zarr", progress=QUIET)


def test_repeated_members_and_other_files_are_not_unpacked(store, tmp_path):
    pack(store, tmp_path / "good.zip", allow=None, progress=QUIET)
    with pytest.warns(UserWarning, match="Duplicate name"):
        twice = repacked(tmp_path / "good.zip", tmp_path / "twice.zip", lambda members: [members[0], *members])
    with pytest.raises(InputError, match="do not match its manifest; first: 'E_a/c/0/0'"):
        unpack(twice, tmp_path / "out.zarr", progress=QUIET)
    (tmp_path / "text.zip").write_text("not a zip")
    data = (tmp_path / "good.zip").read_bytes()
    (tmp_path / "short.zip").write_bytes(data[: len(data) // 2])
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("slides.xml", b"E_a/" * 99)
    other = (tmp_path / "other.zip").read_bytes()
    (tmp_path / "other.zip").write_bytes(other[: len(other) // 2])
    for name in ("text.zip", "other.zip"):
        with pytest.raises(InputError, match="is not a packed store"):
            unpack(tmp_path / name, tmp_path / "out.zarr", progress=QUIET)
    with pytest.raises(DamagedStore, match=r"the packed store .*short\.zip is damaged: File is not a zip file"):
        unpack(tmp_path / "short.zip", tmp_path / "out.zarr", progress=QUIET)
    with pytest.raises(InputError, match="does not exist"):
        unpack(tmp_path / "absent.zip", tmp_path / "out.zarr", progress=QUIET)
    assert not (tmp_path / "out.zarr").exists()


# ---- who may have it


@pytest.mark.parametrize("data_use", RESTRICTIVENESS)
@pytest.mark.parametrize("allowed", [None, *RESTRICTIVENESS])
def test_only_public_stores_are_shared_without_permission(tmp_path, data_use, allowed):
    store = write_store(tmp_path / "s.zarr", range(2), data_use=data_use)
    if data_use in ("public", allowed):
        pack(store, tmp_path / "a.zip", allow=allowed, progress=QUIET)
        push(store, str(tmp_path / "out.zarr"), allow=allowed, progress=QUIET)
        assert contents(tmp_path / "out.zarr") == contents(store)
        return
    for work in (
        lambda: pack(store, tmp_path / "a.zip", allow=allowed, progress=QUIET),
        lambda: push(store, str(tmp_path / "out.zarr"), allow=allowed, progress=QUIET),
    ):
        with pytest.raises(SettingsError, match=rf"class '{data_use}'.*inversion.*--allow-data-use {data_use}$"):
            work()
    assert [file.name for file in tmp_path.iterdir()] == ["s.zarr"]


# ---- buckets and servers


def test_pushing_and_pulling_gives_the_same_store(store, bucket, tmp_path):
    report = push(store, "s3://lab/there.zarr/", allow=None, progress=QUIET)
    assert objects(bucket, "there.zarr/") == contents(store)
    size = sum(map(len, contents(store).values()))
    assert (report.bytes_transferred, report.files_there_before) == (size, 0)
    again = push(store, "s3://lab/there.zarr", allow=None, progress=QUIET)
    assert again.files_there_before == report.files - 1
    assert not any(MARKER in key for key in objects(bucket, "there.zarr/"))
    pulled = pull("s3://lab/there.zarr", tmp_path / "back.zarr", progress=QUIET)
    assert contents(tmp_path / "back.zarr") == contents(store)
    assert (pulled.bytes_transferred, pulled.claimed_root_sha256) == (size, open_store(store).root_sha256)
    assert verify(tmp_path / "back.zarr").problems == ()
    assert [file.name for file in tmp_path.iterdir()] == ["back.zarr"]


def test_pulling_over_http_counts_what_the_server_counts(store, tmp_path):
    with FileServer(store.parent) as server:
        report = pull(f"{server.url}/s.zarr", tmp_path / "back.zarr", progress=QUIET)
        assert contents(tmp_path / "back.zarr") == contents(store)
        assert server.sent - report.bytes_transferred <= 4, "each thread may ask for one byte, whether there are ranges"
        with pytest.raises(StoreError, match=r"cannot push to .*web servers are read-only"):
            push(store, f"{server.url}/new.zarr", allow=None, progress=QUIET)
        with pytest.raises(StoreError, match="exists: choose another folder"):
            pull(f"{server.url}/s.zarr", tmp_path / "back.zarr", progress=QUIET)


def test_large_files_are_pulled_in_blocks(store, tmp_path, monkeypatch):
    shard = (store / "E_v/c/0/0/0").stat().st_size
    for block in (shard, shard // 2, 100):
        monkeypatch.setattr("medalign.teacher_cache.sharing.pull._BLOCK", block)
        with FileServer(store.parent) as server:
            pull(f"{server.url}/s.zarr", tmp_path / f"{block}.zarr", progress=QUIET)
        assert contents(tmp_path / f"{block}.zarr") == contents(store)


def test_a_store_is_not_pushed_onto_itself(store, tmp_path):
    (tmp_path / "link.zarr").symlink_to(store)
    before = contents(store)
    for location in (store, tmp_path / "link.zarr"):
        with pytest.raises(SettingsError, match="is the store itself: push it to another folder, or to a URL"):
            push(store, str(location), allow=None, progress=QUIET)
    assert contents(store) == before


@pytest.mark.parametrize("there", ["other store", "other push", "other files", "other files under a marker"])
def test_a_push_is_not_mixed_with_other_files(store, tmp_path, there):
    out = tmp_path / "out.zarr"
    if there == "other store":
        write_store(out, range(3))
    elif there == "other push":
        out.mkdir()
        (out / f"{MARKER}-{'0' * 64}").touch()
    else:
        push(store, str(out), allow=None, progress=QUIET)
        (out / "manifest-sha256.txt").unlink()
        if there == "other files under a marker":
            (out / "thesis.tex").write_text("mine")
    before = contents(out)
    with pytest.raises(StoreError, match=r"already contains another store|unfinished push of another|is not empty"):
        push(store, str(out), allow=None, progress=QUIET)
    assert contents(out) == before


@pytest.mark.parametrize("key", ["E_v/c/0/0/0", "index.parquet", "README.md"])
def test_a_damaged_store_is_never_published(copy, tmp_path, key):
    flip(copy / key)
    with pytest.raises(DamagedStore, match="damaged"):
        push(copy, str(tmp_path / "out.zarr"), allow=None, progress=QUIET)
    assert not (tmp_path / "out.zarr/manifest-sha256.txt").exists()
    with pytest.raises(StoreError):
        open_store(str(tmp_path / "out.zarr"))


@pytest.mark.parametrize("key", ["E_v/c/0/0/0", "index.parquet", "README.md"])
def test_damage_during_a_transfer_is_detected(copy, tmp_path, key):
    flip(copy / key)
    with FileServer(tmp_path) as server, pytest.raises(DamagedStore, match=f"{key} is damaged: its SHA-256"):
        pull(f"{server.url}/copy.zarr", tmp_path / "out.zarr", progress=QUIET)
    assert not (tmp_path / "out.zarr").exists()
    (copy / key).unlink()
    with FileServer(tmp_path) as server, pytest.raises(StoreError, match=f"has no {key}, although its manifest lists"):
        pull(f"{server.url}/copy.zarr", tmp_path / "out.zarr", progress=QUIET)


def test_a_manifest_with_unsafe_names_is_rejected(copy, tmp_path):
    secret = tmp_path / "secret"
    manifest = copy / "manifest-sha256.txt"
    lines = [*manifest.read_text().splitlines(), f"{'0' * 64}  ../secret"]
    manifest.write_text("".join(f"{line}\n" for line in sorted(lines, key=lambda line: line[66:])))
    with pytest.raises(DamagedStore, match=r"lists '\.\./secret', which is not a valid name"):
        pull(str(copy), tmp_path / "out.zarr", progress=QUIET)
    assert not secret.exists()


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\n"), min_size=1, max_size=12)


@settings(max_examples=50, deadline=None)
@given(
    name=st.one_of(NAMES, st.lists(st.sampled_from(["a", "..", ".", "", "E_v", ".x", "\\"]), min_size=1).map("/".join))
)
def test_accepted_names_stay_inside(name):
    try:
        check_names([name], "a stranger's list")
    except DamagedStore:
        return
    inside = Path("/store")
    assert (inside / name).resolve().is_relative_to(inside)
    assert not any(part.startswith(".") for part in name.split("/"))


STOP = """
import os, signal, sys
from pathlib import Path
from medalign.progress import Silent
{imports}
work, calls = {patched}, []
def stop(*args):
    calls.append(args)
    if len(calls) == 9:
        os.kill(os.getpid(), signal.SIGKILL)
    return work(*args)
{patched} = stop
{call}
"""


def killed(imports: str, patched: str, call: str) -> None:
    """Run a call in a process that is killed at the ninth file."""
    code = STOP.format(imports=imports, patched=patched, call=call)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr


def test_the_lock_of_a_pull_killed_at_its_end_is_removed(store, tmp_path):
    out = tmp_path / "p.zarr"
    pull(str(store), out, progress=QUIET)
    (out / ".lock").touch()
    with pytest.raises(StoreError, match="exists: choose another folder"):
        pull(str(store), out, progress=QUIET)
    assert not (out / ".lock").exists()


@pytest.mark.parametrize("key", ["E_v/c/0/0/0", "README.md", "croissant.json"])
def test_a_store_without_a_listed_file_cannot_be_shared(tmp_path, key):
    store = write_store(tmp_path / "s.zarr", range(3))
    (store / key).unlink()
    message = rf"{key} is missing, but manifest-sha256.txt lists it \(1 in total\).*store repair"
    with pytest.raises(StoreError, match=message):
        push(store, str(tmp_path / "there"), allow=None, progress=QUIET)
    with pytest.raises(StoreError, match=message):
        pack(store, tmp_path / "s.zip", allow=None, progress=QUIET)
    assert not (tmp_path / "there").exists()
    assert not (tmp_path / "s.zip").exists()


def test_a_killed_push_resumes(store, bucket):
    killed(
        "from medalign.teacher_cache.sharing import push as module, destination",
        "destination.Destination.put",
        f"module.push(Path({str(store)!r}), 's3://lab/killed.zarr', allow=None, progress=Silent())",
    )
    there = objects(bucket, "killed.zarr/")
    assert any(key.startswith(MARKER) for key in there)
    assert "manifest-sha256.txt" not in there
    with pytest.raises(StoreError, match=r"is unfinished|is not a teacher store"):
        open_store("s3://lab/killed.zarr")
    report = push(store, "s3://lab/killed.zarr", allow=None, progress=QUIET)
    assert objects(bucket, "killed.zarr/") == contents(store)
    assert report.files_there_before == len(there) - 1 > 0


def test_a_killed_pull_resumes(store, tmp_path):
    with FileServer(store.parent) as server:
        killed(
            "from medalign.teacher_cache.sharing import pull as module",
            "module._fetch",
            f"module.pull({server.url + '/s.zarr'!r}, Path({str(tmp_path / 'out.zarr')!r}), progress=Silent())",
        )
        assert not (tmp_path / "out.zarr").exists()
        kept = [file for file in (tmp_path / ".out.zarr.pull.partial").rglob("*") if file.is_file()]
        kept = [file for file in kept if file.suffix != ".partial" and file.name != ".lock"]
        size = sum(file.stat().st_size for file in kept)
        report = pull(f"{server.url}/s.zarr", tmp_path / "out.zarr", progress=QUIET)
    assert contents(tmp_path / "out.zarr") == contents(store)
    assert report.files_there_before == len(kept) > 0
    assert report.bytes_transferred == sum(map(len, contents(store).values())) - size
    assert [file.name for file in tmp_path.iterdir()] == ["out.zarr"]


# ---- parts


def wanted(*images: int) -> list[Wanted]:
    return [Wanted(image_hash=name_of(image)) for image in images]


def test_a_subset_is_a_complete_store(store, tmp_path):
    by_pixels = Wanted(image_hash="0" * 64, pixel_hash=pixels_of(7))
    report = subset(str(store), tmp_path / "out.zarr", [*wanted(10, 9, 0), by_pixels], progress=QUIET)
    part, whole = open_store(tmp_path / "out.zarr"), open_store(store)
    names = [name_of(image) for image in (0, 7, 10)]
    assert (report.images, report.failures, len(part)) == (3, 1, 3)
    assert part.failures == {name_of(9): "no image"}
    assert torch.equal(part.read(names).E_v, whole.read(names).E_v)
    assert (part.fingerprint, part.header.title, part.root_sha256) == (whole.fingerprint, "Lab", report.root_sha256)
    assert verify(tmp_path / "out.zarr").problems == ()
    with pytest.raises(MissingTeacherRow, match="1 of 2 images have no row"):
        subset(str(store), tmp_path / "none.zarr", wanted(1, 99), progress=QUIET)
    assert not (tmp_path / "none.zarr").exists()


def test_a_subset_of_a_keyed_store_needs_the_key(tmp_path):
    key = HashKey(b"a lab's secret, long enough for it")
    write_store(tmp_path / "s.zarr", range(4), key=key, failing=[2])
    with pytest.raises(StoreError, match=r"hashes of .* are keyed"):
        subset(str(tmp_path / "s.zarr"), tmp_path / "out.zarr", wanted(1), progress=QUIET)
    subset(str(tmp_path / "s.zarr"), tmp_path / "out.zarr", wanted(1, 2), hash_key=key, progress=QUIET)
    part = open_store(tmp_path / "out.zarr", key)
    assert name_of(1) in part
    assert list(part.failures) == [key.keyed(name_of(2))]


@requires_nginx
def test_pulling_some_images_transfers_little_more_than_their_rows(tmp_path):
    """Rows of the size of a ViT-B/16's on its own grid; the bytes are counted by nginx."""
    grid = PatchGrid(14, 14)
    served = write_store(tmp_path / "s.zarr", range(40), native_grid=grid, grid=grid, width=768, shard_rows=16)
    row = sum(array.nbytes for array in open_store(served).header.arrays())
    (tmp_path / "nginx").mkdir()
    with Nginx(tmp_path / "nginx", tmp_path) as server:
        for images in ([3], [1, 17, 35, 38]):
            before = server.sent()
            url, out = f"{server.url}/s.zarr", tmp_path / f"{len(images)}.zarr"
            report = subset(url, out, wanted(*images), progress=QUIET)
            moved = server.sent() - before
            assert len(images) * row < moved <= 1.1 * len(images) * row
            assert report.bytes_transferred == moved - 1, "the question whether it has ranges"
            names = [name_of(image) for image in images]
            assert torch.equal(open_store(out).read(names).E_v, open_store(served).read(names).E_v)


# ---- sums


class KeptNotes(Silent):
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


def test_merged_stores_equal_a_store_of_all_their_images(tmp_path):
    one = write_store(
        tmp_path / "one.zarr", range(6), failing=[1, 2], unreadable=["x"], title="T", licence="L", data_use="private"
    )
    two = write_store(tmp_path / "two.zarr", range(2, 9), failing=[8], wide={0: "float32"}, title="T", licence="M")
    told = KeptNotes()
    with FileServer(tmp_path) as server:
        report = merge([str(one), f"{server.url}/two.zarr"], tmp_path / "sum.zarr", progress=told)
    assert [note for note in told.notes if "the sources state" in note] == [
        "the sources state a license of 'L' and 'M', so the merged store states none: tell its readers"
    ]
    whole, found = write_store(tmp_path / "all.zarr", range(9), failing=[1, 8]), open_store(tmp_path / "sum.zarr")
    assert (report.images, report.failures, report.taken) == (7, 2, (4, 3))
    assert report.repeated == 3
    assert report.differing == tuple(name_of(image) for image in (3, 4, 5)), "they lie in two's wide shard"
    assert (found.header.data_use, found.header.title, found.header.licence) == ("private", "T", None)
    assert found.failures == open_store(whole).failures
    assert found.unreadable == ("x",)
    names = [name_of(image) for image in (0, 3, 4, 5, 6, 7)]
    assert torch.equal(found.read(names).E_v, open_store(whole).read(names).E_v)
    assert torch.equal(found[name_of(2)].E_v, open_store(two)[name_of(2)].E_v), "one failed on it"
    assert verify(tmp_path / "sum.zarr").problems == ()


@settings(max_examples=5, deadline=None)
@given(parts=st.lists(st.sets(st.integers(0, 12), min_size=1), min_size=2, max_size=3))
def test_merging_depends_only_on_the_images(tmp_path_factory, parts):
    folder = tmp_path_factory.mktemp("merge")
    sources = [str(write_store(folder / f"{n}.zarr", sorted(part))) for n, part in enumerate(parts)]
    report = merge(sources, folder / "sum.zarr", progress=QUIET)
    whole = write_store(folder / "all.zarr", sorted(set.union(*parts)), shard_rows=5)
    assert report.root_sha256 == open_store(whole).root_sha256
    assert report.repeated == sum(map(len, parts)) - len(set.union(*parts))
    assert report.differing == ()


def test_stores_with_different_meanings_are_not_merged(store, tmp_path):
    other = write_store(tmp_path / "other.zarr", range(3), teacher="someone", profile="int8", weights_sha256="f" * 64)
    with pytest.raises(StoreError) as refused:
        merge([str(store), str(other)], tmp_path / "sum.zarr", progress=QUIET)
    message = str(refused.value)
    for difference in ("teacher is random and someone", "profile is float16 and int8", f"and {'f' * 64}"):
        assert difference in message
    assert "grid" not in message
    with pytest.raises(SettingsError, match="two or more"):
        merge([str(store)], tmp_path / "sum.zarr", progress=QUIET)
    assert not (tmp_path / "sum.zarr").exists()
