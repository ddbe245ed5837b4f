"""A folder of everything that can lie about: each file has a row, a reason, or is counted as left out; none is lost."""

import errno
import json
import os
from pathlib import Path

import odd_dicoms
import polars as pl
import pytest
from medalign.cli import app
from medalign.pipeline.data.importers import ImportOptions, import_folder
from medalign.pipeline.data.importers.image_folders.folder import UNNAMEABLE
from medalign.pipeline.data.manifest import Manifest
from medalign.progress import Silent
from odd_files import fill, is_unreadable
from odd_rasters import saved, scene
from typer.testing import CliRunner


class Notes(Silent):
    def __init__(self):
        self.lines = []

    def note(self, text):
        self.lines.append(text)

    def __str__(self):
        return "\n".join(self.lines)


def test_nothing_in_a_folder_is_lost(tmp_path):
    outcomes = fill(tmp_path)
    notes = Notes()
    manifest = import_folder(tmp_path, ImportOptions(), notes)
    nameable = {name for name in outcomes if name.isascii() and "\\" not in name}
    without = sorted(outcomes[name] for name in nameable if is_unreadable(outcomes[name]))
    assert sorted(set(manifest.unreadable) - {UNNAMEABLE}) == sorted(set(without))
    assert manifest.unreadable.count(UNNAMEABLE) == len(outcomes) - len(nameable) == 1
    rows = {row["image"]: row for row in manifest.frame.iter_rows(named=True)}
    assert set(rows) == {name for name in nameable if not is_unreadable(outcomes[name])}
    assert len(rows) + len(manifest.unreadable) == len(outcomes)
    for name, row in rows.items():
        size = f"{row['width']} x {row['height']}"
        assert (size == outcomes[name]) == (row["pixel_hash"] is not None), name
    assert "\x1b" not in str(notes), "no terminal codes"
    manifest.write(tmp_path / "m.parquet")
    assert Manifest.read(tmp_path / "m.parquet").unreadable == manifest.unreadable
    assert str(tmp_path) not in str(manifest.unreadable)


def test_the_command_counts_them_and_ends_with_5(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "good.png").write_bytes(saved(scene(), "PNG"))
    (folder / "cut.png").write_bytes(saved(scene(), "PNG")[:99])
    os.mkfifo(folder / "pipe.png")
    command = ["data", "import", "folder", str(folder), "--out", str(tmp_path / "m.parquet"), "--json"]
    done = CliRunner().invoke(app, command)
    report = json.loads(done.stdout)
    assert (report["images"], report["undecodable_images"], report["unreadable_files"]) == (2, 1, 1)
    assert done.exit_code == 5
    assert "1 file could not be read and got no row" in done.stderr
    assert "1: a pipe, not a regular file" in done.stderr


def test_dicom_is_found_by_its_bytes_where_the_name_says_nothing(tmp_path):
    data = {"IM000001": "DICOM without a suffix", "1.2.840.113619.2.5": "DICOM without a suffix", "x.dcm": "DICOM, RLE"}
    made = {odd.what: odd for odd in odd_dicoms.READ}
    for name, what in data.items():
        made[what].make(tmp_path / name)
    for name in ("README", "volume.nii", "DICOMDIR", "notes.1"):
        (tmp_path / name).write_bytes(b"x" * 500 if name != "DICOMDIR" else (tmp_path / "IM000001").read_bytes())
    os.mkfifo(tmp_path / "pipe")
    notes = Notes()
    manifest = import_folder(tmp_path, ImportOptions(), notes)
    assert manifest.frame["image"].to_list() == sorted(data)
    assert manifest.frame["pixel_hash"].null_count() == 0
    assert "5 files are not images by their name or content and are skipped" in str(notes)


def test_linked_folders_are_searched_once_and_loops_end(tmp_path):
    data = tmp_path / "elsewhere"
    data.mkdir()
    (data / "a.png").write_bytes(saved(scene(), "PNG"))
    folder = tmp_path / "images"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "b.png").write_bytes(saved(scene(), "BMP"))
    (folder / "linked").symlink_to(data)
    (folder / "linked again").symlink_to(data)
    (folder / "deep" / "up").symlink_to(folder)
    (data / "out").symlink_to(tmp_path)
    manifest = import_folder(folder, ImportOptions(), Silent())
    assert manifest.frame["image"].to_list() == ["deep/b.png", "linked/a.png"]
    assert manifest.unreadable == ()


def test_a_folder_that_cannot_be_opened_is_counted(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(saved(scene(), "PNG"))
    closed = tmp_path / "patient-4711"
    closed.mkdir()
    real = os.scandir

    def refuse(path):  # root may open anything, so the system's answer is played
        if Path(path) == closed:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", refuse)
    manifest = import_folder(tmp_path, ImportOptions(), Silent())
    assert manifest.unreadable == ("a folder that cannot be opened: Permission denied",)
    assert len(manifest) == 1


@pytest.mark.parametrize("kind", ["vqa-rad", "llava-json"])
def test_questions_about_unreadable_files_are_left_out_and_counted(tmp_path, kind):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "good.jpg").write_bytes(saved(scene(), "JPEG"))
    os.mkfifo(tmp_path / "images" / "pipe.jpg")
    names = ["good.jpg", "pipe.jpg"]
    if kind == "vqa-rad":
        source = tmp_path
        record = {"question": "?", "answer": "yes", "answer_type": "CLOSED", "phrase_type": "freeform"}
        asked = [{"qid": number, "image_name": name, **record} for number, name in enumerate(names)]
        (tmp_path / "vqa_rad.json").write_text(json.dumps(asked))
    else:
        source = tmp_path / "images" / "talks.json"
        talk = [{"from": "human", "value": "?"}, {"from": "gpt", "value": "yes"}]
        source.write_text(json.dumps([{"id": name, "image": name, "conversations": talk} for name in names]))
    out = tmp_path / "m.parquet"
    done = CliRunner().invoke(app, ["data", "import", kind, str(source), "--out", str(out), "--json"])
    assert done.exit_code == 5
    assert pl.read_parquet(out)["image"].to_list() == ["good.jpg"]
    assert Manifest.read(out).unreadable == ("a pipe, not a regular file",)
