"""The training loop: exact averaging, logged terms, saving and loading, resuming, interruption."""

import json
import multiprocessing
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from medalign.errors import InputError
from medalign.progress import Silent
from medalign.student.adapters.adapter_folder import read_adapter_record
from medalign.student.decoding import Decoding
from medalign.student.decoding.generation import generate_answers
from medalign.student.inputs.alignment_dataset import AlignmentDataset
from medalign.student.inputs.collation import EncodedSample, encode_sample
from medalign.student.loading.student_loading import load_student, open_student
from medalign.student.training.training_run import train_student
from students import (
    LAYER,
    OPTIONS,
    adapter_record,
    mixed_samples,
    sample,
    trainable,
    write_images,
    write_tiny_student,
)
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils.data import Dataset


class Targets(Dataset):
    """Samples with random teacher targets; text-only samples have none."""

    def __init__(self, student, samples):
        generator = torch.Generator().manual_seed(5)
        self.items = []
        for item in samples:
            encoded = encode_sample(student, item, with_answer=True)
            count = len(item.images)
            targets = {}
            if count:
                targets["E_v"] = torch.randn(count, 9, 5, generator=generator)
                targets["E_a"] = torch.rand(count, 9, generator=generator)
            fields = {name: getattr(encoded, name) for name in ("input_ids", "labels", "pixel_values")}
            self.items.append(EncodedSample(**fields, **targets))

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


def run(folder, out, samples, options=OPTIONS, *, validation=False, progress=None, resume=False):
    student = trainable(folder)
    data = Targets(student, samples)
    result = train_student(
        student,
        adapter_record(student),
        options,
        data,
        data if validation else None,
        out,
        progress or Silent(),
        resume=resume,
    )
    return student, result


def log_of(out):
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def values(student):
    return {name: p.detach().clone() for name, p in student.model.named_parameters() if p.requires_grad}


@pytest.fixture
def samples(tmp_path):
    return [*mixed_samples(tmp_path / "a"), *mixed_samples(tmp_path / "b")][:8]


def test_accumulation_does_not_change_the_step(student_folder, tmp_path, samples):
    """8 x 1 = 4 x 2 = 2 x 4, although samples differ in answer length and number of images."""
    trained = {}
    for batch, accumulation in ((8, 1), (4, 2), (2, 4)):
        out = tmp_path / f"{batch}x{accumulation}"
        options = replace(
            OPTIONS,
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=accumulation,
            max_steps=2,
            save_steps=5,
        )
        student, _ = run(student_folder, out, samples, options)
        trained[batch] = values(student)
        logs = [line for line in log_of(out) if "loss_vis" in line]
        assert len(logs) == 2
    for other in (4, 2):
        for name, expected in trained[8].items():
            torch.testing.assert_close(trained[other][name], expected, atol=1e-5, rtol=0)


def test_the_logged_loss_is_the_weighted_sum_of_its_terms(student_folder, tmp_path, samples):
    out = tmp_path / "out"
    options = replace(
        OPTIONS,
        per_device_train_batch_size=3,
        gradient_accumulation_steps=2,
        eval_steps=4,
        max_steps=4,
        logging_steps=2,
        save_steps=4,
    )
    run(student_folder, out, samples, options, validation=True)
    training = [line for line in log_of(out) if "loss" in line]
    assert len(training) == 2
    for line in training:
        total = line["loss_lm"] + OPTIONS.alpha * line["loss_vis"] + OPTIONS.beta * line["loss_att"]
        assert line["loss"] == pytest.approx(total, rel=1e-4)
    (evaluation,) = [line for line in log_of(out) if "eval_loss" in line]
    total = evaluation["eval_loss_lm"] + OPTIONS.alpha * evaluation["eval_loss_vis"]
    assert evaluation["eval_loss"] == pytest.approx(total + OPTIONS.beta * evaluation["eval_loss_att"])


def test_rotation_has_a_separate_learning_rate(student_folder, tmp_path, samples):
    """The size of Adam's first step is about its learning rate, for any gradient."""
    options = replace(OPTIONS, learning_rates=replace(OPTIONS.learning_rates, rotation=1e-4), max_steps=1)
    student, _ = run(student_folder, tmp_path / "out", samples, options)
    assert student.model.rotations[LAYER].weight.abs().max().item() == pytest.approx(1e-4, rel=0.01)


@pytest.mark.parametrize("limit", [0.05, 1e6, None])
def test_gradients_are_clipped_to_max_grad_norm(student_folder, tmp_path, samples, limit):
    """The gradients that AdamW gets, measured by torch's norm of all gradients as one vector."""
    norms = []

    def measure(optimizer, args, kwargs):
        gradients = [
            p.grad.flatten() for group in optimizer.param_groups for p in group["params"] if p.grad is not None
        ]
        norms.append(float(torch.linalg.vector_norm(torch.cat(gradients))))

    handle = register_optimizer_step_pre_hook(measure)
    try:
        run(student_folder, tmp_path / "out", samples, replace(OPTIONS, max_grad_norm=limit, max_steps=2))
    finally:
        handle.remove()
    logged = [line["grad_norm"] for line in log_of(tmp_path / "out") if "grad_norm" in line]
    assert min(logged) > 0.05, "the log has the norm before clipping"
    expected = logged if limit is None else [min(limit, norm) for norm in logged]
    assert norms == pytest.approx(expected, rel=1e-3)


def test_an_adapter_gives_the_same_answers_in_a_new_process(student_folder, tmp_path, samples, forks):
    out = tmp_path / "out"
    student, result = run(student_folder, out, samples, replace(OPTIONS, max_steps=4, per_device_train_batch_size=2))
    assert result.steps == 4
    student.model.eval()
    answers = generate_answers(student, samples, Decoding(max_new_tokens=12), batch_size=4, progress=Silent())
    here = [answer.text for answer in answers]
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[3])\n"
        "from students import mixed_samples\n"
        "from medalign.progress import Silent\n"
        "from medalign.student.decoding import Decoding\n"
        "from medalign.student.decoding.generation import generate_answers\n"
        "from medalign.student.loading.student_loading import load_student\n"
        "import json\n"
        "samples = [*mixed_samples(Path(sys.argv[2]) / 'a'), *mixed_samples(Path(sys.argv[2]) / 'b')]\n"
        "s = load_student(sys.argv[1])\n"
        "answers = generate_answers(s, samples, Decoding(max_new_tokens=12), batch_size=4, progress=Silent())\n"
        "print(json.dumps([answer.text for answer in answers]))"
    )
    tests = str(Path(__file__).parents[2])
    (tmp_path / "reload.py").write_text(code)
    (done,) = forks.run(tmp_path / "reload.py", out, tmp_path, tests)
    assert done.code == 0, done.stderr
    assert json.loads(done.stdout) == here
    plain = generate_answers(
        load_student(student_folder), samples, Decoding(max_new_tokens=12), batch_size=4, progress=Silent()
    )
    assert [answer.text for answer in plain] != here


def test_a_resumed_run_equals_an_uninterrupted_one(student_folder, tmp_path, samples):
    options = replace(OPTIONS, per_device_train_batch_size=2, max_steps=6, save_steps=2)
    whole, _ = run(student_folder, tmp_path / "whole", samples, options)

    class StopAtThree(Silent):
        steps = 0

        def advance(self, steps=1):
            self.steps += steps
            if self.steps == 3:
                os.kill(os.getpid(), signal.SIGINT)

    out = tmp_path / "cut"
    _, cut = run(student_folder, out, samples, options, progress=StopAtThree())
    assert cut.interrupted
    assert cut.steps == 3
    assert not (out / "adapter_model.safetensors").exists()
    resumed, result = run(student_folder, out, samples, options, resume=True)
    assert result.steps == 6
    assert not result.interrupted
    for name, expected in values(whole).items():
        torch.testing.assert_close(values(resumed)[name], expected, atol=0, rtol=0)


def test_checkpoints_contain_the_rotation(student_folder, tmp_path, samples):
    out = tmp_path / "out"
    run(student_folder, out, samples)
    checkpoint = load_student(out / "checkpoint-2")
    assert checkpoint.model.rotations[LAYER].weight.abs().max() > 0


def test_resume_without_a_checkpoint_is_refused(student_folder, tmp_path, samples):
    with pytest.raises(InputError, match="no complete checkpoint to resume from"):
        run(student_folder, tmp_path / "out", samples, resume=True)


def test_an_adapter_on_another_base_is_refused(student_folder, tmp_path, samples):
    out = tmp_path / "out"
    run(student_folder, out, samples)
    other = tmp_path / "other"
    write_tiny_student(other, seed=7)
    with pytest.raises(InputError, match="trained on a base with fingerprint"):
        load_student(other, adapter=out)
    assert read_adapter_record(out).layers == (LAYER,)


def test_incomplete_adapters_are_refused(student_folder, tmp_path, samples):
    out = tmp_path / "out"
    run(student_folder, out, samples)
    (out / "rotation.safetensors").unlink()
    with pytest.raises(InputError, match=r"rotation\.safetensors is missing"):
        load_student(out)
    (out / "medalign.json").unlink()
    with pytest.raises(InputError, match="not a finished adapter"):
        load_student(student_folder, adapter=out)


def test_a_sample_that_is_too_long_is_refused(student_folder, tmp_path):
    student = open_student(student_folder, layers=[LAYER], rotation="none", template="plain")
    image = write_images(tmp_path, [(24, 24)])[0]
    data = AlignmentDataset(student, [sample("Why?", "because", image)], None, max_length=20)
    with pytest.raises(InputError, match=r"question 'Why\?' has \d+ tokens, more than training.max_length 20"):
        data[0]


def test_workers_are_stopped_after_training(student_folder, tmp_path, samples):
    """Workers persist over epochs of training and validation, but must not outlive the run."""
    before = set(multiprocessing.active_children())
    options = replace(OPTIONS, dataloader_num_workers=1, max_steps=4, eval_steps=1)
    run(student_folder, tmp_path / "out", samples, options, validation=True)
    assert set(multiprocessing.active_children()) == before
