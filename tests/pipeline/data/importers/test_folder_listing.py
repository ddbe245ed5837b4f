"""Which files of a folder are images, and what the summaries say of the others and of pictures that show little."""

import json
import os

import numpy as np
import pytest
from dicoms import picture, written
from medalign.cli import app
from medalign.errors import InputError
from medalign.pipeline.data.importers import ImportOptions, import_folder
from medalign.progress import Counting, Silent
from medalign.teacher_cache.teachers import teacher_spec
from medalign.teacher_cache.teachers.towers import build_tower
from odd_rasters import gray_scene, saved, scene
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

PNG = saved(scene(), "PNG")
DICOM = written(picture(np.asarray(gray_scene())))


class Notes(Silent):
    def __init__(self):
        self.lines = []

    def note(self, text):
        self.lines.append(text)


def write(folder, files) -> None:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def imported(folder):
    notes = Notes()
    counting = Counting(notes)
    manifest = import_folder(folder, ImportOptions(), counting)
    return manifest, "\n".join(notes.lines), counting.counts


@pytest.mark.parametrize(
    "name",
    ["MR0001.IMA", "PAT.CT.0001.2015.03.10.IMA", "image.dic", "x.CT", "IM-0001-0001", "1.2.840.7", "scan.mr", "a.v2"],
)
def test_dicom_is_found_by_its_bytes_whatever_it_is_called(tmp_path, name):
    preambleless = DICOM[144 + int.from_bytes(DICOM[140:144], "little") :]
    write(tmp_path, {name: DICOM, f"b/{name}": preambleless, "notes.txt": b"no image"})
    manifest, _, counts = imported(tmp_path)
    assert sorted(manifest.frame["image"]) == sorted([name, f"b/{name}"])
    assert counts["other_files_left_out"] == 1


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("x.jfif", "JPEG"),
        ("x.JPE", "JPEG"),
        ("x.j2k", "JPEG2000"),
        ("x.jpf", "JPEG2000"),
        ("000123", "PNG"),
        ("photo", "JPEG"),
        ("photo.7", "BMP"),
        ("wsi", "TIFF"),
        ("clip", "GIF"),
        ("w", "WEBP"),
        ("p", "PPM"),
    ],
)
def test_pictures_with_rare_suffixes_or_none_are_found(tmp_path, name, kind):
    write(tmp_path, {name: saved(scene(), kind), "README": b"text", "LICENSE": b"text", "notes.2": b"x" * 300})
    manifest, notes, _ = imported(tmp_path)
    assert manifest.frame["image"].to_list() == [name]
    assert manifest.frame["pixel_hash"].null_count() == 0
    assert "3 files are not images by their name or content and are skipped" in notes


SYSTEM = {
    "._a.png": b"\0\x05\x16\x07\0\x02\0\0" + bytes(80),
    ".DS_Store": b"\0\0\0\1Bud1",
    ".hidden.png": PNG,
    "Thumbs.db": b"\xd0\xcf\x11\xe0",
    "desktop.ini": b"[x]",
    ".Trash-1000/files/deleted.png": PNG,
    ".ipynb_checkpoints/a-checkpoint.png": PNG,
    "@eaDir/a.png/SYNOPHOTO_THUMB_M.png": PNG,
    "__MACOSX/._a.png": b"\0\x05\x16\x07",
    "$RECYCLE.BIN/S-1-5/x.png": PNG,
    "lost+found/x.png": PNG,
    "#snapshot/x.png": PNG,
    "System Volume Information/x.png": PNG,
}


def test_hidden_and_system_files_are_left_out_and_counted(tmp_path):
    write(tmp_path, SYSTEM | {"a.png": PNG, "sub/b.png": PNG, "sub/@eaDir/b.png/t.jpg": PNG})
    manifest, notes, counts = imported(tmp_path)
    assert manifest.frame["image"].to_list() == ["a.png", "sub/b.png"]
    assert manifest.unreadable == ()
    assert counts["hidden_or_system_left_out"] == len(SYSTEM) + 1
    assert f"{len(SYSTEM) + 1} hidden or system files and folders are skipped: " in notes
    for name in ("1 ._* (AppleDouble)", "2 @eaDir"):
        assert name in notes


def test_a_hidden_folder_that_is_named_itself_is_searched(tmp_path):
    write(tmp_path, {".cache/images/a.png": PNG})
    assert len(imported(tmp_path / ".cache")[0]) == 1


def test_a_folder_of_nothing_but_hidden_files_says_so(tmp_path):
    write(tmp_path, {".hidden.png": PNG, "__MACOSX/a.png": PNG})
    with pytest.raises(InputError, match=r"\(not searched\): 1 \.hidden\.png, 1 __MACOSX"):
        imported(tmp_path)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("scan.nii.gz", "1 .nii.gz; .nii.gz files are volumes: export their slices as PNG or DICOM"),
        ("scan.nii", "1 .nii; .nii files are volumes: export their slices as PNG or DICOM"),
        ("slide.svs", "1 .svs; .svs files are whole-slide images: export the regions you need as PNG"),
        ("images.tar.gz", "1 .tar.gz; .tar.gz files are archives: unpack them"),
        ("photo.HEIC", "1 .heic; .heic files are unsupported image formats: save them as PNG"),
        ("table.csv", "1 .csv"),
    ],
)
def test_what_is_left_out_is_counted_with_what_helps(tmp_path, name, words):
    write(tmp_path, {name: b"x" * 400, "a.png": PNG})
    assert imported(tmp_path)[1].splitlines()[0].endswith(f"is skipped: {words}")


def test_a_pipe_without_a_suffix_does_not_hang(tmp_path):
    write(tmp_path, {"a.png": PNG})
    os.mkfifo(tmp_path / "pipe")
    assert len(imported(tmp_path)[0]) == 1


def test_the_summary_of_an_import_counts_what_is_left_out_and_what_shows_little(tmp_path):
    dark = Image.fromarray(np.asarray(gray_scene()).astype(np.uint16) * 16)
    pale = Image.fromarray(np.asarray(gray_scene()) // 10 + 200)
    files = {"a.png": PNG, "dark.png": saved(dark, "PNG"), "pale.png": saved(pale, "PNG"), "t.csv": b"1", ".x": b"1"}
    write(tmp_path / "images", files)
    command = ["data", "import", "folder", str(tmp_path / "images"), "--out", str(tmp_path / "m.parquet")]
    done = CliRunner().invoke(app, [*command, "--json"])
    assert done.exit_code == 0
    report = json.loads(done.stdout)
    counted = ("narrow_range_images", "hidden_or_system_left_out", "other_files_left_out")
    assert [report[name] for name in counted] == [2, 1, 1]
    assert "2 of 3 images use less than an eighth of their pixel range" in done.stderr
    shown = CliRunner().invoke(app, command).output
    assert "narrow_range_images" in shown or "narrow range images" in shown


def test_the_summary_of_an_extraction_counts_them_too(tmp_path):
    weights = tmp_path / "teacher.safetensors"
    save_file(build_tower(teacher_spec("phantom-tiny")).state_dict(), weights)
    pale = Image.fromarray(np.asarray(gray_scene()) // 10 + 200)
    turned = [saved(pale.transpose(Image.Transpose(turn)), "PNG") for turn in (0, 1, 2)]
    files = {f"{number}.png": data for number, data in enumerate([PNG, *turned])}
    write(tmp_path / "images", files | {"x.csv": b"1", "@eaDir/t.png": PNG, ".DS_Store": b"1"})
    command = [
        "teacher",
        "extract",
        "--teacher",
        "phantom-tiny",
        "--weights",
        weights,
        "--device",
        "cpu",
        "--grid",
        "3x3",
    ]
    command += ["--images", tmp_path / "images", "--out", tmp_path / "s.zarr", "--shard-rows", 2, "--threads", 1]
    done = CliRunner().invoke(app, [*map(str, command), "--json"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    counted = ("images", "narrow_range_images", "hidden_or_system_left_out", "other_files_left_out")
    assert [report[name] for name in counted] == [4, 3, 2, 1]
