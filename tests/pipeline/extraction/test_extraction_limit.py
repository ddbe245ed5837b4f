"""`teacher extract --limit N`: a store of the first images, resumed as it is and extended to all of them."""

import hashlib

import pytest
import torch
from medalign.errors import InputError, PartialResult
from medalign.pipeline.data.importers import ImportOptions, import_folder
from medalign.pipeline.extraction.extract import (
    CrewRequest,
    ExtensionRequest,
    ExtractionRequest,
    run_extension,
    run_extraction,
)
from medalign.pipeline.extraction.image_sources import ImageRequest
from medalign.pipeline.stores.repair import TeacherRequest, sample_store
from medalign.pipeline.stores.verify import verify_store
from medalign.progress import Silent
from medalign.teacher_cache.store import open_store
from medalign.teacher_cache.store.checking.verification import verify
from medalign.teacher_cache.store.format.keyed_hashes import make_key
from medalign.teacher_cache.teachers import teacher_spec
from medalign.teacher_cache.teachers.towers import build_tower
from renamed import rename_by_one, resave
from safetensors.torch import save_file
from students import write_images

COUNT = 7


class Notes(Silent):
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("weights") / "teacher.safetensors"
    save_file(build_tower(teacher_spec("phantom-tiny")).state_dict(), path)
    return str(path)


@pytest.fixture
def images(tmp_path):
    paths = write_images(tmp_path / "images", [(24, 20)] * COUNT)
    import_folder(tmp_path / "images", ImportOptions(), Silent()).write(tmp_path / "m.parquet")
    return paths


def hashes(paths):
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]


def request(weights, out, source, **changes):
    fields = {"grid": "3x3", "batch_size": 2, "threads": 1, "crew": CrewRequest(device="cpu"), **changes}
    return ExtractionRequest(teacher="phantom-tiny", weights=weights, out=out, images=source, **fields)


@pytest.mark.parametrize("kind", ["manifest", "images"])
def test_the_first_images_make_a_store_that_extend_completes(weights, images, tmp_path, kind):
    place = {"manifest": tmp_path / "m.parquet", "images": tmp_path / "images"}[kind]
    out, progress = tmp_path / "s.zarr", Notes()
    report = run_extraction(request(weights, out, ImageRequest(**{kind: place}, limit=3)), progress)
    report.note_rest(progress)
    names = hashes(images)
    store = open_store(out)
    assert [store.row(name) for name in names[:3]] == [0, 1, 2]
    assert store.missing(names) == names[3:]
    summary = report.summary()
    assert (summary["images"], summary["images_left_out_by_limit"]) == (3, 4)
    assert "--limit 3: the first 3 of 7 images" in progress.notes
    assert (
        f"to add the other 4 images, run `medalign store extend {out}` with the same images and weights, but without "
        "--limit"
    ) in progress.notes
    extension = ExtensionRequest(
        store=out, weights=weights, images=ImageRequest(**{kind: place}), crew=CrewRequest(device="cpu")
    )
    assert run_extension(extension, Silent()).summary()["images"] == 4
    assert open_store(out).missing(names) == []
    assert verify(out).ok


def test_shards_are_as_large_as_for_all_images(weights, images, tmp_path, monkeypatch):
    """A store of MIMIC-CXR that began with ten images must not end as ten thousand small files."""
    monkeypatch.setattr("medalign.teacher_cache.store.format.header._SMALLEST_SHARD", 1)
    monkeypatch.setattr("medalign.teacher_cache.store.format.header._MOST_SHARD_FILES", 9)  # 3 shards of 2 arrays
    headers = []
    for name, limit in (("all", None), ("few", 2)):
        source = ImageRequest(manifest=tmp_path / "m.parquet", limit=limit)
        run_extraction(request(weights, tmp_path / name, source), Silent())
        headers.append(open_store(tmp_path / name).header.shard_rows)
    assert headers == [3, 3]


def test_a_limited_extraction_is_resumed_and_its_plan_is_kept(weights, images, tmp_path):
    source = ImageRequest(manifest=tmp_path / "m.parquet", limit=3)
    out = tmp_path / "s.zarr"
    first = run_extraction(request(weights, out, source, shard_rows=2), Silent()).summary()
    again = run_extraction(request(weights, out, source, resume=True), Silent()).summary()
    assert again["root_sha256"] == first["root_sha256"]
    assert again["shards_kept_from_an_earlier_run"] == 2
    progress = Notes()
    whole = ImageRequest(manifest=tmp_path / "m.parquet")
    assert run_extraction(request(weights, out, whole, resume=True), progress).summary()["images"] == 3
    assert any("4 images are not in the plan" in note and "`medalign store extend`" in note for note in progress.notes)
    fewer = ImageRequest(manifest=tmp_path / "m.parquet", limit=2)
    with pytest.raises(InputError, match=r"1 of the 3 planned images .* no smaller --limit"):
        run_extraction(request(weights, out, fewer, resume=True), Silent())


def test_a_limit_beyond_the_images_changes_nothing(weights, images, tmp_path):
    images[1].write_bytes(images[0].read_bytes())  # six distinct images in seven files
    progress = Notes()
    source = ImageRequest(images=tmp_path / "images", limit=COUNT)
    summary = run_extraction(request(weights, tmp_path / "s.zarr", source), progress).summary()
    assert (summary["images"], summary["images_left_out_by_limit"]) == (6, 0)
    assert not any("--limit" in note for note in progress.notes)


@pytest.mark.parametrize("keyed", [False, True])
def test_renamed_images_get_no_row_and_the_first_file_is_named(weights, images, tmp_path, keyed):
    key = tmp_path / "lab.key" if keyed else None
    if keyed:
        make_key(key)
    rename_by_one(images[2:])
    resave(images[0])
    out = tmp_path / "s.zarr"
    source = ImageRequest(manifest=tmp_path / "m.parquet")
    report = run_extraction(request(weights, out, source, hash_key=key), Silent())
    assert report.summary()["failures"] == COUNT - 2, "what was re-saved without loss is the same image"
    with pytest.raises(PartialResult) as caught:
        report.raise_for_failures()
    told = str(caught.value)
    assert f"{COUNT - 2} files differ from the manifest, first {images[2]}: " in told
    assert "`medalign data check MANIFEST --hashes`" in told
    text = "".join(path.read_bytes().decode("latin-1") for path in sorted(out.rglob("*.parquet")))
    assert not keyed or not any(name in text for name in hashes(images)), "a keyed store tells no plain hash"


@pytest.mark.parametrize("keyed", [False, True])
def test_rows_are_not_compared_with_renamed_images(weights, images, tmp_path, keyed):
    key = tmp_path / "lab.key" if keyed else None
    if keyed:
        make_key(key)
    source = ImageRequest(manifest=tmp_path / "m.parquet", limit=3)
    run_extraction(request(weights, tmp_path / "s.zarr", source, hash_key=key), Silent())
    teacher = TeacherRequest(weights=weights, images=source, device="cpu", hash_key=key)
    before = hashes(images)
    for path in images:
        resave(path)
    checked = sample_store(verify_store(str(tmp_path / "s.zarr"), Silent()), 3, 0, teacher, Silent())
    assert all(row.within and row.same_pixels for row in checked.sample)
    rename_by_one(images)
    with pytest.raises(InputError) as caught:
        sample_store(verify_store(str(tmp_path / "s.zarr"), Silent()), 3, 0, teacher, Silent())
    for part in (str(images[0]), before[0][:12], hashes(images)[0][:12], "`medalign data check MANIFEST --hashes`"):
        assert part in str(caught.value)
