"""`data check --hashes` finds every file that does not hold its image, and says what it holds instead."""

import hashlib
import json
import os
import shutil

import polars as pl
import pytest
from medalign.cli import app
from medalign.errors import InputError
from medalign.pipeline.data.annotations.region_questions import coverage_of, grounded_questions
from medalign.pipeline.data.data_check import check_manifest
from medalign.pipeline.data.file_check import check_files
from medalign.pipeline.data.importers import ImportOptions, import_folder
from medalign.pipeline.data.manifest import SCHEMA, Manifest, ManifestImage, ManifestRow
from medalign.pipeline.data.manifest_schema import MaskHash
from medalign.pipeline.data.mask_hashes import mask_hashes
from medalign.pipeline.data.phantoms.phantom_dataset import make_phantoms
from medalign.pipeline.data.regions import Region
from medalign.progress import Silent
from medalign.teacher_cache.geometry.patch_grid import PatchGrid
from renamed import brighten, rename_by_one, resave
from students import write_images
from typer.testing import CliRunner

SIZES = [(9, 7), (8, 8), (12, 5), (6, 6), (7, 9), (5, 5)]


@pytest.fixture
def images(tmp_path):
    return write_images(tmp_path / "images", SIZES)


@pytest.fixture
def manifest(images, tmp_path):
    made = import_folder(tmp_path / "images", ImportOptions(), Silent())
    made.write(tmp_path / "m.parquet")
    return tmp_path / "m.parquet"


def sha(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def checked(manifest):
    return check_files(Manifest.read(manifest), Silent())


def test_files_that_are_what_they_were_pass(manifest):
    report = checked(manifest)
    assert report.counts == {"same": 6, "saved_again": 0, "swapped": 0, "changed": 0, "unreadable": 0}
    report.raise_for_wrong()


def test_every_kind_of_file_is_told_apart(manifest, images, tmp_path):
    before = [sha(path) for path in images]
    resave(images[0])
    images[1].write_bytes(images[2].read_bytes())  # a copy of another one
    brighten(images[3])
    images[4].unlink()
    os.mkfifo(images[4])
    resave(images[2])
    shutil.copyfile(images[2], images[5])  # known by its pixels alone
    report = checked(manifest)
    assert report.counts == {"same": 0, "saved_again": 2, "swapped": 2, "changed": 1, "unreadable": 1}
    wrong = [(file.image, file.kind, file.holds, file.expected, file.actual) for file in report.wrong]
    assert wrong == [
        ("1.png", "swapped", "2.png", before[1], before[2]),
        ("3.png", "changed", None, before[3], sha(images[3])),
        ("4.png", "unreadable", None, before[4], None),
        ("5.png", "swapped", "2.png", before[5], sha(images[5])),
    ]
    with pytest.raises(InputError) as caught:
        report.raise_for_wrong()
    lines = str(caught.value).splitlines()
    assert lines[0] == (f"4 of 6 files differ from the manifest (root {tmp_path / 'images'}):")
    assert lines[1] == (f"  1.png: SHA-256 {before[2][:12]}..., in the manifest {before[1][:12]}...; contains 2.png")
    assert lines[2].endswith("contains no file of the manifest")
    assert lines[3] == "  4.png: a pipe, not a regular file"
    assert lines[5].startswith("2 files contain another file of the manifest: files were renamed or swapped.")


def test_a_file_that_could_never_be_decoded_is_known_by_its_bytes(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    import_folder(tmp_path / "images", ImportOptions(), Silent()).write(tmp_path / "m.parquet")
    assert checked(tmp_path / "m.parquet").counts["same"] == 1
    (tmp_path / "images" / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n\x00")
    assert checked(tmp_path / "m.parquet").counts["changed"] == 1


def test_files_of_one_content_and_second_images_are_all_read(images, tmp_path):
    """A copy has the hash of the first file, and question 1's second image stands in no column of its own."""
    shutil.copyfile(images[0], images[1])
    digests = [sha(path) for path in images[:3]]
    rows = [
        ManifestRow(
            question_id=str(number), question="?", split="test", data_use="public", image=f"{number}.png",
            image_hash=digests[number],
            more_images=(ManifestImage(image="2.png", image_hash=digests[2]),) if number else (),
        )
        for number in range(2)
    ]  # fmt: skip
    Manifest.from_rows(rows, images[0].parent, "x").write(tmp_path / "m.parquet")
    assert checked(tmp_path / "m.parquet").counts["same"] == 3
    brighten(images[1])
    brighten(images[2])
    assert [file.image for file in checked(tmp_path / "m.parquet").wrong] == ["1.png", "2.png"]


def test_the_command_reports_renamed_images_and_ends_with_code_3(manifest, images):
    good = CliRunner().invoke(app, ["data", "check", str(manifest), "--hashes", "--json"])
    assert good.exit_code == 0
    assert json.loads(good.stdout)["hashes"] == {
        "checked": 6, "same": 6, "saved_again": 0, "swapped": 0, "changed": 0, "unreadable": 0,
    }  # fmt: skip
    rename_by_one(images)
    assert CliRunner().invoke(app, ["data", "check", str(manifest)]).exit_code == 0
    found = CliRunner().invoke(app, ["data", "check", str(manifest), "--hashes", "--json"])
    assert found.exit_code == 3
    report = json.loads(found.stdout)
    assert report["hashes"]["swapped"] == 6
    assert [file["holds"] for file in report["wrong_files"]] == [f"{(n - 1) % 6}.png" for n in range(6)]
    assert "6 of 6 files differ from the manifest" in found.stderr


def test_masks_are_checked_by_their_bytes(tmp_path):
    make_phantoms(tmp_path / "p", images=3, seed=1, progress=Silent())
    manifest, folder = tmp_path / "p" / "manifest.parquet", tmp_path / "p" / "masks"
    masks = sorted(folder.glob("*.organs.png"))
    assert checked(manifest).counts["same"] == 3 + len(mask_hashes(Manifest.read(manifest).frame)) >= 6
    before = [sha(path) for path in masks]
    rename_by_one(masks)
    wrong = [(file.image, file.kind, file.holds) for file in checked(manifest).wrong]
    assert wrong == [
        (f"masks/{path.name}", "swapped", f"masks/{masks[index - 1].name}") for index, path in enumerate(masks)
    ]
    questions = grounded_questions(Manifest.read(manifest).split("train"), ("heart", "liver", "lung", "kidney"), None)
    with pytest.raises(InputError) as caught:
        coverage_of(questions, PatchGrid(3, 3))
    for part in (masks[0].name, "is not the mask that the manifest names", before[0][:12], sha(masks[0])[:12]):
        assert part in str(caught.value)
    rename_by_one(masks[::-1])
    assert len(coverage_of(questions, PatchGrid(3, 3))) == len(questions.regions)


def test_a_manifest_without_mask_hashes_reads_its_masks_as_before(tmp_path):
    make_phantoms(tmp_path / "p", images=2, seed=1, progress=Silent())
    path = tmp_path / "p" / "manifest.parquet"
    header = {"medalign": pl.read_parquet_metadata(path)["medalign"]}
    pl.read_parquet(path).drop("mask_hashes").write_parquet(path, metadata=header)
    manifest = Manifest.read(path)
    assert manifest.frame.schema == SCHEMA
    assert mask_hashes(manifest.frame) == {}
    assert len(coverage_of(grounded_questions(manifest, ("lesion",), None), PatchGrid(3, 3)))


def test_one_mask_with_two_hashes_is_refused(tmp_path):
    rows = [
        ManifestRow(
            question_id=str(number), question="?", split="x", data_use="public", image="0.png", image_hash="a" * 64,
            regions=(Region(name="x", mask="m.png"),), mask_hashes=(MaskHash("m.png", digest * 64),),
        )
        for number, digest in enumerate("bbc")
    ]  # fmt: skip
    Manifest.from_rows(rows[:2], tmp_path, "x")
    with pytest.raises(InputError, match="one mask with more than one mask_hash: 3 rows, first question_id 0, 1, 2"):
        Manifest.from_rows(rows, tmp_path, "x")


def test_missing_files_are_counted_as_before(manifest, images):
    images[0].unlink()
    report = check_manifest(manifest, None, Silent(), hashes=True)
    assert (report.missing_images.count, report.summary()["hashes"]["checked"]) == (1, 5)
    assert CliRunner().invoke(app, ["data", "check", str(manifest), "--hashes"]).exit_code == 5
