"""Evaluation during training: early stopping, the best adapter, and loggers."""

import importlib.util
import json
from dataclasses import replace

import pytest
import torch
from medalign.errors import SettingsError
from medalign.progress import Silent
from medalign.student.inputs.alignment_dataset import AlignmentDataset
from medalign.student.training.training_run import check_reporters, train_student
from safetensors.torch import load_file
from students import OPTIONS, adapter_record, mixed_samples, sample, trainable


@pytest.fixture
def best(student_folder, tmp_path):
    """A run whose validation split contradicts its training split, so that its validation loss soon increases."""
    student = trainable(student_folder)
    train = AlignmentDataset(student, mixed_samples(tmp_path / "images"), None, max_length=800)
    held_out = AlignmentDataset(student, [sample("Say yes.", "no, never")], None, max_length=800)
    options = replace(OPTIONS, max_steps=40, eval_steps=1, save_steps=100, patience=2)
    result = train_student(student, adapter_record(student), options, train, held_out, tmp_path / "out", Silent())
    return tmp_path / "out", result


def test_training_stops_and_keeps_the_best_adapter(best):
    out, result = best
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    losses = {line["step"]: line["eval_loss"] for line in lines if "eval_loss" in line}
    step = min(losses, key=losses.get)
    assert result.steps == step + 2 < 40
    assert result.best == {"step": step, "eval_loss": losses[step], "checkpoint": f"checkpoint-{step}"}
    kept = load_file(out / "adapter_model.safetensors")
    checkpoint = load_file(out / f"checkpoint-{step}" / "adapter_model.safetensors")
    last = load_file(out / f"checkpoint-{result.steps}" / "adapter_model.safetensors")
    assert all(torch.equal(kept[name], value) for name, value in checkpoint.items())
    assert not all(torch.equal(kept[name], value) for name, value in last.items())


def test_a_missing_logger_package_is_reported_before_training(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=r"report_to names wandb, but the package 'wandb' is not installed"):
        check_reporters(("wandb",))


def test_evaluations_do_not_change_training(student_folder, tmp_path):
    """Evaluations do not change the random state of training."""
    curves = []
    for steps in (None, 1):
        student = trainable(student_folder, dropout=0.2)
        data = AlignmentDataset(student, mixed_samples(tmp_path / "images"), None, max_length=800)
        options = replace(OPTIONS, max_steps=4, per_device_train_batch_size=2, eval_steps=steps, save_steps=100)
        out = tmp_path / str(steps)
        train_student(student, adapter_record(student), options, data, data if steps else None, out, Silent())
        lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
        curves.append([line["loss"] for line in lines if "loss" in line])
    assert curves[0] == curves[1]
    assert len(curves[0]) == 4
