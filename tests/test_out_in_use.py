"""An --out that is in use, or holds another run, has one exit code in every command: that of a bad input."""

import stat
from functools import partial
from pathlib import Path

import pytest
from medalign.errors import InputError, MedalignError
from medalign.pipeline.attention.attend import AttendRequest, run_attend
from medalign.pipeline.data.phantoms.phantom_dataset import make_phantoms
from medalign.pipeline.demo.demo import DemoPlan, run_demo
from medalign.pipeline.evaluation.comparison.claim import check_saved, claim
from medalign.pipeline.inspection.inspect_request import InspectRequest
from medalign.pipeline.inspection.inspect_students import run_inspection
from medalign.pipeline.runs.answer_log import check_free, open_run
from medalign.pipeline.stores import output_places
from medalign.pipeline.stores.output_places import check_output
from medalign.pipeline.training.resume import check_same_run
from medalign.pipeline.training.settings import Settings
from medalign.pipeline.training.train import check_out
from medalign.progress import Silent
from medalign.student.folders.model_folder import check_new_folder, new_folder
from medalign.teacher_cache.sharing.pack import pack
from medalign.teacher_cache.sharing.pull import pull
from medalign.teacher_cache.sharing.push import push
from medalign.teacher_cache.sharing.unpack import unpack
from medalign.teacher_cache.store.filesystem.locks import RunLock
from medalign.teacher_cache.store.writing.writer import StoreWriter
from stores import name_of, store_header, write_store

IN_USE = InputError.exit_code


@pytest.fixture(scope="module")
def used(tmp_path_factory) -> Path:
    """A folder with a file in it, a finished store, and what a comparison and a training run begin with."""
    folder = tmp_path_factory.mktemp("used")
    (folder / "mine").mkdir()
    (folder / "mine" / "notes.txt").write_text("mine")
    write_store(folder / "s.zarr", range(4))
    write_store(folder / "other.zarr", range(3))
    claim(folder / "compared", {"seeds": [0]}, resume=False)
    open_run(folder / "evaluated", {"batch_size": 1}, resume=False)
    (folder / "config.yaml").write_text(settings(steps=4).to_yaml())
    return folder


def settings(steps: int) -> Settings:
    values = {"student": {"path": "s"}, "data": {"manifest": "m", "store": "s.zarr"}, "training": {"max_steps": steps}}
    return Settings.model_validate(values)


def create(path: Path) -> None:
    StoreWriter.create(path, store_header(range(4)), [name_of(image) for image in range(4)])


def attend_request(used: Path) -> AttendRequest:
    return AttendRequest(student=used, images=(used,), question="Is it?")


WAYS = {
    "evaluate": lambda used: check_free(used / "mine", resume=False),
    "evaluate --resume": lambda used: open_run(used / "evaluated", {"batch_size": 2}, resume=True),
    "attend": lambda used: run_attend(attend_request(used), used / "mine", Silent()),
    "inspect": lambda used: run_inspection(InspectRequest(student=used, manifest=used), used / "mine", Silent()),
    "compare": lambda used: claim(used / "compared", {"seeds": [0]}, resume=False),
    "compare over files": lambda used: claim(used / "mine", {"seeds": [0]}, resume=False),
    "compare --resume": lambda used: claim(used / "compared", {"seeds": [1]}, resume=True),
    "compare --reanalyze": lambda used: check_saved(used / "compared", {"seeds": [1]}),
    "train": lambda used: check_out(used / "mine", resume=False),
    "train --resume": lambda used: check_same_run(settings(steps=5), used / "config.yaml"),
    "init, convert, export": lambda used: check_new_folder(used / "mine"),
    "data phantom": lambda used: make_phantoms(used / "mine", 1, 0, Silent()),
    "demo": lambda used: run_demo(used / "mine", 0, Silent(), plan=DemoPlan(seed=0)),
    "extract": lambda used: create(used / "s.zarr"),
    "extract over files": lambda used: create(used / "mine"),
    "extract --resume": lambda used: StoreWriter.resume(used / "s.zarr", store_header(range(3))),
    "pack": lambda used: pack(used / "s.zarr", used / "mine", allow=None, progress=Silent()),
    "unpack": lambda used: unpack(used / "s.zip", used / "mine", progress=Silent()),
    "pull": lambda used: pull(str(used / "s.zarr"), used / "mine", progress=Silent()),
    "push": lambda used: push(used / "s.zarr", f"file://{used / 'other.zarr'}", allow=None, progress=Silent()),
    "push over files": lambda used: push(used / "s.zarr", f"file://{used / 'mine'}", allow=None, progress=Silent()),
}


@pytest.mark.parametrize("way", WAYS)
def test_an_out_in_use_is_a_bad_input(used, way):
    with pytest.raises(MedalignError) as caught:
        WAYS[way](used)
    assert caught.value.exit_code == IN_USE, f"{way}: {caught.value}"
    assert sorted(path.name for path in (used / "mine").iterdir()) == ["notes.txt"]


def test_an_out_that_another_run_writes_to_is_a_bad_input(used):
    with RunLock(used / "evaluated"), pytest.raises(MedalignError) as caught, RunLock(used / "evaluated"):
        pass
    assert caught.value.exit_code == IN_USE


def test_an_output_below_a_file_is_refused_before_the_work(tmp_path):
    """Every command with --out or DESTINATION makes this check first."""
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("file", "link"):
        with pytest.raises(InputError, match=rf"--out: .*/a/b cannot be created, because .*/{name} is no folder"):
            check_output(tmp_path / name / "a" / "b", "--out")
    for path in (tmp_path / "new" / "folder", Path("/")):
        check_output(path, "--out")


def test_an_output_in_a_read_only_folder_is_refused_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(output_places.os, "access", lambda folder, mode: folder != tmp_path)  # root may write anywhere
    with pytest.raises(InputError, match=r"--out: .*/new/a cannot be created, because you may not write to"):
        check_output(tmp_path / "new" / "a", "--out")
    check_output(tmp_path, "--out")  # the command says whether it may be used


def test_a_link_to_nothing_is_in_use(tmp_path):
    (tmp_path / "link").symlink_to("nowhere")
    for check in (check_new_folder, partial(check_free, resume=False)):
        with pytest.raises(InputError, match=r"link (already )?exists"):
            check(tmp_path / "link")


def test_folders_in_a_new_folder_can_be_entered(tmp_path):
    """Users other than root need the x bit, also to write the rest; models come with files that only they can read."""
    with new_folder(tmp_path / "out") as folder:
        (folder / "figures").mkdir()
        (folder / "model").touch(mode=0o600)
    modes = [stat.S_IMODE((tmp_path / "out" / name).stat().st_mode) for name in ("figures", "model")]
    assert (modes[0] & 0o500, modes[1]) == (0o500, 0o644)
