"""A checkpoint is complete or ignored: killed at any file, or on a full disk."""

import json
import resource
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from medalign.errors import InputError, MedalignError
from medalign.progress import Silent
from medalign.student.inputs.alignment_dataset import AlignmentDataset
from medalign.student.training import student_trainer
from medalign.student.training.checkpoints import (
    MARKER,
    checkpoints_in,
    is_whole,
    last_whole_checkpoint,
    read_state,
    remove_cut_off,
)
from medalign.student.training.trainer import AlignmentTrainer
from medalign.student.training.training_run import train_student
from students import OPTIONS, adapter_record, mixed_samples, trainable

STEPS = replace(OPTIONS, per_device_train_batch_size=2, max_steps=3, save_steps=1)


def run(student_folder, folder, out, progress=None, *, resume=False):
    student = trainable(student_folder)
    data = AlignmentDataset(student, mixed_samples(folder / "images"), None, max_length=800)
    return train_student(student, adapter_record(student), STEPS, data, None, out, progress or Silent(), resume=resume)


@pytest.fixture(scope="module")
def whole(student_folder, tmp_path_factory):
    """A run of three steps with a checkpoint after each step, the last two of them kept."""
    folder = tmp_path_factory.mktemp("whole")
    run(student_folder, folder, folder / "out")
    return folder / "out"


def test_a_checkpoint_killed_at_any_file_is_incomplete(whole, tmp_path):
    source = whole / "checkpoint-3"
    files = sorted((path for path in source.iterdir()), key=lambda path: (path.name == MARKER, path.stat().st_mtime_ns))
    assert files[-1].name == MARKER
    assert len(files) >= 7
    assert is_whole(source)
    for number, file in enumerate(files):
        out = tmp_path / str(number)
        torn = out / "checkpoint-3"
        torn.mkdir(parents=True)
        for written in files[:number]:
            shutil.copy2(written, torn)
        assert not is_whole(torn), f"before {file.name}"
        (torn / file.name).write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        assert not is_whole(torn), f"in the middle of {file.name}"
        shutil.copytree(whole / "checkpoint-2", out / "checkpoint-2")
        assert last_whole_checkpoint(out) == out / "checkpoint-2"
        assert remove_cut_off(out) == ["checkpoint-3"]
        assert [path.name for path in checkpoints_in(out)] == ["checkpoint-2"]


@pytest.mark.parametrize(
    "text", ["", "[]", "null", '{"files": []}', '{"files": {"optimizer.pt": "1"}}', '{"file', "\x00" * 9]
)
def test_an_invalid_marker_means_incomplete(whole, tmp_path, text):
    shutil.copytree(whole / "checkpoint-3", tmp_path / "checkpoint-3")
    (tmp_path / "checkpoint-3" / MARKER).write_text(text)
    assert not is_whole(tmp_path / "checkpoint-3")


def test_a_checkpoint_is_incomplete_while_it_is_rewritten(student_folder, tmp_path, monkeypatch):
    """Saved at the epoch's last step, and again after the epoch's evaluation."""
    written, marked = [], []

    def save(self, output_dir):
        written.append((Path(output_dir).name, is_whole(Path(output_dir))))
        save_states(self, output_dir)

    def mark(checkpoint):
        marked.append(checkpoint.name)
        mark_whole(checkpoint)

    save_states = AlignmentTrainer._save_optimizer_and_scheduler
    mark_whole = student_trainer.mark_whole
    monkeypatch.setattr(AlignmentTrainer, "_save_optimizer_and_scheduler", save)
    monkeypatch.setattr(student_trainer, "mark_whole", mark)
    student = trainable(student_folder)
    data = AlignmentDataset(student, mixed_samples(tmp_path / "images"), None, max_length=800)
    options = replace(OPTIONS, per_device_train_batch_size=4, max_steps=1, save_steps=1, patience=2)
    train_student(student, adapter_record(student), options, data, data, tmp_path / "out", Silent())
    assert marked == ["checkpoint-1", "checkpoint-1"]
    assert written == [("checkpoint-1", False), ("checkpoint-1", False)]
    assert is_whole(tmp_path / "out" / "checkpoint-1")


@pytest.mark.parametrize("file", ["optimizer.pt", "scheduler.pt"])
@pytest.mark.parametrize("harm", [lambda data: b"\0" * len(data), lambda data: data[:-200] + b"\0" * 200])
def test_a_damaged_state_is_reported(whole, tmp_path, file, harm):
    """A checkpoint whose files have the right sizes but wrong bytes."""
    shutil.copy(whole / "checkpoint-2" / file, tmp_path)
    assert read_state(tmp_path / file)
    (tmp_path / file).write_bytes(harm((tmp_path / file).read_bytes()))
    with pytest.raises(
        InputError, match=rf"{file} cannot be read: .*Delete {tmp_path} to resume from the previous checkpoint"
    ):
        read_state(tmp_path / file)


def not_utf8(data):
    return b"\xff\xff" + data[2:]


def step_in_words(data):
    return data.replace(b'"global_step": 2', b'"global_step": "x"')


@pytest.mark.parametrize(
    ("file", "harm", "help_"),
    [
        ("checkpoint-2/trainer_state.json", not_utf8, "Delete .*checkpoint-2 to resume from the previous checkpoint"),
        ("checkpoint-2/trainer_state.json", step_in_words, "global_step is 'x'. Delete .*checkpoint-2 to resume"),
        ("checkpoint-2/rng_state.pth", not_utf8, "Delete .*checkpoint-2 to resume from the previous checkpoint"),
        ("log.jsonl", not_utf8, "Delete it to resume"),
    ],
)
def test_damaged_files_of_an_interrupted_run_are_reported(student_folder, whole, tmp_path, file, harm, help_):
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    shutil.rmtree(out / "checkpoint-3")
    (out / file).write_bytes(harm((out / file).read_bytes()))
    marker = out / "checkpoint-2" / MARKER  # as after a fault of the disk: all sizes are right
    files = json.loads(marker.read_text())["files"]
    sizes = {name: (marker.parent / name).stat().st_size for name in files}
    marker.write_text(json.dumps({"files": sizes}))
    with pytest.raises(InputError, match=rf"{file}(: invalid line 1| cannot be read): .*{help_}") as caught:
        run(student_folder, whole.parent, out, resume=True)
    assert "\n" not in str(caught.value)


class FullDisk(Silent):
    """After step 2, the kernel refuses to write files of more than `limit` bytes (EFBIG)."""

    def __init__(self, limit: int) -> None:
        self.limit, self.steps = limit, 0

    def advance(self, steps: int = 1) -> None:
        self.steps += steps
        if self.steps == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.limit, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


@pytest.mark.parametrize("file", ["optimizer.pt", "adapter_model.safetensors", "trainer_state.json", "log.jsonl"])
def test_a_full_disk_ends_a_run_with_one_message(student_folder, whole, tmp_path, file):
    """Real write errors, at the given file or at the first larger one."""
    path = whole / file if file == "log.jsonl" else whole / "checkpoint-2" / file
    limit = path.stat().st_size - 1 if file != "log.jsonl" else 10
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    out = tmp_path / "out"
    try:
        with pytest.raises(MedalignError) as caught:
            run(student_folder, tmp_path, out, FullDisk(limit))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    message = str(caught.value)
    assert "\n" not in message
    assert "cannot be written: " in message
    assert "iB are free in" in message
    assert "--resume" in message
    assert [path.name for path in checkpoints_in(out)] == ["checkpoint-1"]
    assert is_whole(out / "checkpoint-1")
    if file not in ("log.jsonl", "optimizer.pt"):  # enough to see that a run continues
        return
    result = run(student_folder, tmp_path, out, resume=True)
    assert result.steps == 3
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [line["loss"] for line in log if "loss" in line] == [
        line["loss"] for line in map(json.loads, (whole / "log.jsonl").read_text().splitlines()) if "loss" in line
    ]


@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_file_or_link_instead_of_a_checkpoint_folder_is_refused(tmp_path, kind):
    """They are not deleted, because a link can point to a folder elsewhere."""
    place = tmp_path / "checkpoint-9"
    if kind == "file":
        place.write_text("notes")
    else:
        (tmp_path / "elsewhere").mkdir()
        place.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=rf"checkpoint-9 is a {kind}, .*Move it elsewhere"):
        remove_cut_off(tmp_path)
    assert place.exists()
