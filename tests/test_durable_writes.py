"""What a later step trusts is on disk first: new files, appended lines, adapters and checkpoints."""

import errno
import os
import stat
from pathlib import Path
from threading import Barrier, Thread

import pytest
from medalign import atomic
from medalign.errors import InputError, MedalignError
from medalign.pipeline.runs.answer_log import AnswerLog, LoggedAnswer
from medalign.progress import Silent
from medalign.student.adapters.adapter_folder import ADAPTER_RECORD, save_adapter
from medalign.student.training.callbacks import Watcher
from medalign.student.training.checkpoints import MARKER, mark_whole
from students import adapter_record, trainable, write_tiny_student
from transformers import TrainerControl, TrainerState, TrainingArguments


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def synced(monkeypatch) -> list[str]:
    """Names of the files and folders that were synced, and `-> NAME` where a file got its name, in order."""
    events: list[str] = []
    rename, link = Path.replace, Path.hardlink_to

    def sync(descriptor: int) -> None:
        name = Path(f"/proc/self/fd/{descriptor}").readlink().name
        events.append("temporary" if atomic.is_temporary(name) else name)

    def renamed(path: Path, target: Path) -> Path:
        events.append(f"-> {Path(target).name}")
        return rename(path, target)

    def linked(path: Path, target: Path) -> None:
        link(path, target)
        events.append(f"-> {path.name}")

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "replace", renamed)
    monkeypatch.setattr(Path, "hardlink_to", linked)
    return events


@pytest.fixture
def without_links(monkeypatch) -> None:
    """A file system without hard links, such as FAT."""

    def refuse(path: Path, target: Path) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM), str(path))

    monkeypatch.setattr(Path, "hardlink_to", refuse)


def test_a_new_file_is_on_disk_before_it_has_its_name(tmp_path, synced):
    atomic.write_new(tmp_path / "new", b"text")
    assert synced == ["temporary", "-> new", tmp_path.name]


def test_an_appended_line_is_on_disk_and_so_is_the_name_of_a_new_file(tmp_path, synced):
    for text in ("one\n", "two\n"):
        atomic.append(tmp_path / "log", text)
    assert synced == ["log", tmp_path.name, "log"]
    assert (tmp_path / "log").read_text() == "one\ntwo\n"


def test_a_new_file_replaces_nothing(tmp_path):
    """A link to a missing file is something, too."""
    (tmp_path / "file").write_text("mine")
    (tmp_path / "dangling").symlink_to("missing")
    for name in ("file", "dangling"):
        with pytest.raises(FileExistsError):
            atomic.write_new(tmp_path / name, b"text")
    assert names(tmp_path) == ["dangling", "file"]
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.usefixtures("without_links")
def test_a_new_file_needs_no_links(tmp_path, monkeypatch):
    atomic.write_new(tmp_path / "key", b"text", 0o600)
    assert (tmp_path / "key").read_bytes() == b"text"
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    monkeypatch.setattr(os.path, "lexists", lambda path: False)  # as if another process were faster
    with pytest.raises(FileExistsError):
        atomic.write_new(tmp_path / "key", b"other")
    assert (tmp_path / "key").read_bytes() == b"text"
    assert names(tmp_path) == ["key"]


@pytest.mark.parametrize("links", [True, False])
def test_one_of_several_writers_writes_a_new_file(links, tmp_path, request):
    if not links:
        request.getfixturevalue("without_links")
    start, written = Barrier(8), []

    def write(number: int) -> None:
        start.wait()
        try:
            atomic.write_new(tmp_path / "run.json", b"%d" % number)
        except FileExistsError:
            return
        written.append(number)

    threads = [Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [int((tmp_path / "run.json").read_bytes())] == written
    assert names(tmp_path) == ["run.json"]


def test_an_adapter_is_on_disk_before_its_record(tmp_path, synced):
    write_tiny_student(tmp_path / "base")
    student = trainable(tmp_path / "base")
    synced.clear()
    save_adapter(student.model, adapter_record(student), tmp_path / "adapter")
    weights = {path.name for path in (tmp_path / "adapter").iterdir()} - {ADAPTER_RECORD}
    assert len(weights) >= 3, "LoRA and its configuration, and W"
    assert {*weights, "adapter"} <= set(synced[: synced.index(f"-> {ADAPTER_RECORD}")])


def test_a_checkpoint_is_on_disk_before_its_marker(tmp_path, synced):
    folder = tmp_path / "run" / "checkpoint-1"
    (folder / "part").mkdir(parents=True)
    (folder / "weights").write_text("w")
    (folder / "part" / "more").write_text("m")
    mark_whole(folder)
    before = set(synced[: synced.index(f"-> {MARKER}")])
    assert before == {"weights", "more", "part", "checkpoint-1", "run", "temporary"}


def answered(out: Path) -> None:
    answer = LoggedAnswer(question_id="q", prediction="yes", seconds=0.1, forwards=1)
    log = AnswerLog(out, ["q", "q2"], 1)
    log.append(0, [answer])
    (out / "answers.jsonl").unlink()
    os.mkfifo(out / "answers.jsonl")
    log.append(1, [answer])


def logged(out: Path) -> None:
    os.mkfifo(out / "log.jsonl")
    state = TrainerState(is_world_process_zero=True)
    Watcher(Silent(), out / "log.jsonl").on_log(
        TrainingArguments(str(out)), state, TrainerControl(), logs={"loss": 1.0}
    )


@pytest.mark.parametrize(("write", "name"), [(answered, "answers.jsonl"), (logged, "log.jsonl")])
def test_logs_are_not_appended_to_a_pipe(write, name, tmp_path):
    """Opening one would wait forever for a reader."""
    with pytest.raises((InputError, MedalignError), match=f"{name} is a pipe, and a new file would replace it"):
        write(tmp_path)
    assert stat.S_ISFIFO((tmp_path / name).stat().st_mode)
