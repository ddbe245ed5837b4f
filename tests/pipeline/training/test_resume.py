"""A run that was killed goes on as if nothing had happened, and refuses to become another run."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from labs import lab_settings, make_lab, write_config
from medalign.errors import InputError
from medalign.pipeline.training.resume import MAY_CHANGE, check_same_run, saved_config
from medalign.pipeline.training.settings import Settings
from medalign.pipeline.training.settings_loading import load_settings
from medalign.pipeline.training.train import check_out, run_training
from medalign.progress import Silent
from medalign.student.training.checkpoints import checkpoints_in, is_whole, last_whole_checkpoint
from safetensors.torch import load_file

KILLS = {0: "step-5", 2: "save-4"}
"""Moment of the kill by number of DataLoader workers. Checkpoints are written every second step."""


class Notes(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def curve(out: Path) -> list[dict[str, float]]:
    """Steps, losses, learning rates and gradient norms that were logged; not times."""
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    kept = ("step", "loss", "loss_lm", "loss_vis", "loss_att", "grad_norm", "learning_rate", "eval_loss")
    return [{key: line[key] for key in kept if key in line} for line in lines if "train_runtime" not in line]


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Path:
    """W, LoRA in the language model and in the tower, the whole projector; LoRA drops out; two epochs.

    Kills fall into the warm-up.
    """
    folder = make_lab(tmp_path_factory.mktemp("lab"))
    for workers in (0, 2):
        settings = lab_settings(folder, dataloader_num_workers=workers, eval_steps=3, warmup_ratio=0.75)
        settings["data"]["validation_split"] = "validation"
        settings["trainable"] = {"projector": "full", "vision_tower": "lora"}
        write_config(folder / f"workers-{workers}.yaml", settings)
    return folder


@pytest.fixture(scope="module")
def whole(lab) -> Path:
    run_training(load_settings(lab / "workers-0.yaml"), lab / "whole", Silent())
    return lab / "whole"


@pytest.fixture(scope="module")
def killed(lab, forks) -> Path:
    """Runs that were killed with SIGKILL, one for each number of workers."""
    words = [word for n, kill in KILLS.items() for word in (lab / f"workers-{n}.yaml", lab / f"killed-{n}", kill)]
    (done,) = forks.run(Path(__file__).parents[2] / "killed_run.py", *words)
    assert done.stdout.endswith("killed\n"), done.stderr
    return lab


@pytest.mark.parametrize("workers", KILLS)
def test_after_kill_9_every_later_loss_is_bitwise_the_same(killed, whole, workers):
    out = killed / f"killed-{workers}"
    expected_last = {0: "checkpoint-4", 2: "checkpoint-2"}[workers]
    assert [path.name for path in checkpoints_in(out)] == ["checkpoint-2", "checkpoint-4"]
    last = last_whole_checkpoint(out)
    assert last is not None
    assert last.name == expected_last, "a checkpoint that was cut off is not taken"
    notes = Notes()
    config = killed / f"workers-{workers}.yaml" if workers == 0 else saved_config(out, resume=True)
    report = run_training(load_settings(config), out, notes, resume=True)
    assert report.result.steps == 8
    torn = ["removed incomplete checkpoint-4; continuing from checkpoint-2"]
    assert [note for note in notes.notes if "removed" in note] == (torn if workers == 2 else [])
    assert curve(out) == curve(whole)
    assert len(curve(whole)) == 11, "8 steps and 3 evaluations"
    for name in ("adapter_model", "rotation", "projector"):
        resumed, expected = (load_file(folder / f"{name}.safetensors") for folder in (out, whole))
        assert resumed.keys() == expected.keys()
        assert all(torch.equal(resumed[key], expected[key]) for key in expected)


def test_all_of_the_run_was_trained(whole):
    lora = load_file(whole / "adapter_model.safetensors")
    for part in ("language_model", "vision_tower"):
        values = [value for key, value in lora.items() if part in key and "lora_B" in key]
        assert values
        assert all(value.abs().max() > 0 for value in values)
    assert load_file(whole / "rotation.safetensors")["layers.2"].abs().max() > 0


def test_settings_that_change_the_result_are_refused_with_both_values(lab, whole):
    settings = load_settings(lab / "workers-0.yaml", ["alignment.beta=0.5", "training.max_steps=9", "lora.r=4"])
    with pytest.raises(InputError) as caught:
        run_training(settings, whole, Silent(), resume=True)
    message = str(caught.value)
    assert "alignment.beta: 1.0 before, 0.5 now" in message
    assert "training.max_steps: 8 before, 9 now" in message
    assert "lora.r: 2 before, 4 now" in message
    assert "A run of another length has a different learning-rate schedule" in message


ENDINGS = {
    "max_steps": ({"max_steps": 3}, r"all 3 steps are complete"),
    "epochs": ({"max_steps": None, "num_train_epochs": 1, "save_steps": None}, r"all 5 steps are complete"),
    "patience": (
        {"patience": 1, "learning_rate": 0.3, "max_steps": 30},
        r"patience stopped it after step \d+ of 30, best ch",
    ),
}
"""What ends a run, and how that is said."""


@pytest.fixture(scope="module", params=ENDINGS)
def finished(request, lab) -> tuple[Path, Path, str]:
    """A finished run: configuration, folder, and how it ended."""
    changes, how = ENDINGS[request.param]
    settings = lab_settings(lab, dataloader_num_workers=0, eval_steps=1, **changes)
    settings["data"]["validation_split"] = "validation"
    config = write_config(lab / f"{request.param}.yaml", settings)
    run_training(load_settings(config), lab / request.param, Silent())
    return config, lab / request.param, how


def bytes_of(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_resuming_a_finished_run_changes_nothing(finished):
    config, out, how = finished
    before, times = bytes_of(out), {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    for source in (config, saved_config(out, resume=True)):
        report = run_training(load_settings(source), out, Silent(), resume=True)
        assert report.was_finished
        assert re.search(how, report.ending())
        assert report.summary() == json.loads(before["summary.json"])
    assert bytes_of(out) == before
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == times
    with pytest.raises(InputError, match="is not empty: it contains a finished run; pass another --out"):
        check_out(out, resume=False)


def test_a_run_killed_behind_its_last_step_only_writes_its_adapter(finished, tmp_path):
    """No step is trained a second time, nor one more than the run has."""
    config, out, _ = finished
    before = bytes_of(out)
    copy = unfinished(out, tmp_path / "run")
    for name in ("medalign.json", "rotation.safetensors"):
        (copy / name).unlink()
    report = run_training(load_settings(config), copy, Silent(), resume=True)
    expected = json.loads(before["summary.json"])
    assert not report.was_finished
    of_this_start = {"adapter": "", "seconds": 0, "resumed_from": 0}
    assert report.summary() | of_this_start == expected | of_this_start
    assert report.summary()["resumed_from"] == expected["steps"]
    after = bytes_of(copy)
    assert after.keys() == before.keys()
    weights = [name for name in before if name.endswith((".safetensors", ".pt", ".pth"))]
    assert len(weights) > 6
    assert all(after[name] == before[name] for name in weights)
    assert curve(copy) == curve(out)


def test_a_first_checkpoint_that_was_cut_off_is_no_obstacle(lab, whole, tmp_path):
    """Neither for a run with --resume, which is told what to do, nor for one that starts again."""
    out = tmp_path / "run"
    torn = out / "checkpoint-2"
    torn.mkdir(parents=True)
    (out / "runs").mkdir()
    shutil.copy(whole / "config.yaml", out)
    (out / "log.jsonl").write_text('{"step": 1, "loss"')
    (torn / "adapter_model.safetensors").write_bytes(b"torn")
    (torn / "rng_state_7.pth").write_bytes(b"of a process that is no more")
    check_out(out, resume=False)
    with pytest.raises(InputError, match=r"start without --resume \(checkpoint-2 is incomplete\)"):
        check_out(out, resume=True)
    settings = load_settings(lab / "workers-0.yaml", ["training.max_steps=2"])
    notes = Notes()
    run_training(settings, out, notes)
    assert notes.notes[0] == ("removed incomplete checkpoint-2; starting from the beginning")
    assert is_whole(torn)
    assert not (torn / "rng_state_7.pth").exists()
    assert [line["step"] for line in curve(out) if "loss" in line] == [1, 2]


def test_settings_that_do_not_change_it_are_allowed(lab, whole):
    changes = [
        "training.dataloader_num_workers=1",
        "training.logging_steps=3",
        "training.save_steps=5",
        "training.device=null",
    ]
    check_same_run(load_settings(lab / "workers-0.yaml", changes), whole / "config.yaml")
    names = {f"{section}.{key}" for section, field in Settings.model_fields.items() for key in keys_of(field)}
    assert names > MAY_CHANGE


def unfinished(whole: Path, out: Path) -> Path:
    """A copy of a run as it is where it was killed before its last file."""
    shutil.copytree(whole, out)
    (out / "summary.json").unlink()
    return out


def keys_of(field) -> list[str]:
    return list(field.annotation.model_fields)


def test_other_questions_under_the_same_name_are_refused(lab, whole, tmp_path):
    out = unfinished(whole, tmp_path / "run")
    settings = load_settings(lab / "workers-0.yaml", ["data.train_split=validation", "data.validation_split=train"])
    (out / "config.yaml").write_text(settings.to_yaml())
    with pytest.raises(InputError, match=r"the training questions .* before, .* now"):
        run_training(settings, out, Silent(), resume=True)


def test_a_checkpoint_without_its_last_file_is_none(whole, tmp_path):
    (last, *_) = reversed(checkpoints_in(whole))
    assert is_whole(last)
    torn = tmp_path / last.name
    torn.mkdir()
    for path in last.iterdir():
        (torn / path.name).write_bytes(path.read_bytes())
    assert is_whole(torn)
    (torn / "rotation.safetensors").write_bytes(b"")
    assert not is_whole(torn)
    with pytest.raises(InputError, match="no complete checkpoint to resume from"):
        check_out(tmp_path, resume=True)
