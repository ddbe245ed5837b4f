"""Two processes give the losses of one process with the same samples in a step, also in bfloat16."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from align_labs import align_values, make_align_lab
from labs import lab_settings, write_config
from medalign.errors import SettingsError
from medalign.pipeline.align.align_settings import load_align_settings
from medalign.pipeline.align.align_student import run_align
from medalign.pipeline.training.settings_loading import load_settings
from medalign.pipeline.training.train import run_training
from medalign.progress import Silent
from medalign.student.inputs.alignment_dataset import FilledDataset
from medalign.student.inputs.collation import EncodedSample
from medalign.student.loading.student_loading import load_student, open_student
from medalign.student.training.fsdp import sharding_arguments
from safetensors.torch import load_file

SCRIPT = Path(__file__).parents[2] / "runs_in_two.py"
STEPS = 6
"""18 questions, 8 in a step: the third step of an epoch has two, so one process has nothing but filling."""
IN_BF16 = ["student.dtype=bfloat16", "training.learning_rate=0.001"]
"""Steps so small that a gradient that is rounded otherwise does not change the next losses by as much."""
TEACHER_TOKENS = [
    *("alignment.image_tokens=teacher", "alignment.alpha=0", "alignment.beta=0", "alignment.rotation=none"),
    "trainable.projector=none",
]
EXPERTS = ["alignment.query_experts=true"]
FILES = ("adapter_model", "rotation", "projector")


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Path:
    """Text-only questions beside ones with images, answers of 1 to 7 words, the projector trained as well."""
    folder = make_align_lab(tmp_path_factory.mktemp("lab"))
    for name, batch in (("one", 4), ("two", 2)):
        settings = lab_settings(folder, per_device_train_batch_size=batch, max_steps=STEPS, eval_steps=3, save_steps=4)
        settings["lora"]["lora_dropout"] = 0.0
        settings["data"]["validation_split"] = "validation"
        settings["trainable"] = {"projector": "full"}
        write_config(folder / f"{name}.yaml", settings)
    settings = align_values(folder)
    settings["lora"]["lora_dropout"] = 0.0
    write_config(folder / "align.yaml", settings)
    return folder


@pytest.fixture(scope="module")
def alone(lab) -> Path:
    run_training(load_settings(lab / "one.yaml"), lab / "alone", Silent())
    return lab / "alone"


@pytest.fixture(scope="module")
def alone_bf16(lab) -> Path:
    """One process with the same batches: bfloat16 rounds otherwise in batches that are cut in another way."""
    same = [*IN_BF16, "training.gradient_accumulation_steps=4"]
    run_training(load_settings(lab / "two.yaml", same), lab / "alone-bf16", Silent())
    return lab / "alone-bf16"


@pytest.fixture(scope="module")
def together(lab, forks) -> Path:
    """Runs of two processes, in the environment that torchrun gives them; `printed` is what they printed.

    The last one is poisoned: its term has no weight, so that nothing but the check carries it to the other process.
    `make test-wheel` starts torchrun itself.
    """
    runs = {"null": [], "fsdp2": [], "null-bfloat16": IN_BF16, "fsdp2-bfloat16": IN_BF16}
    runs["null-teacher-tokens"] = TEACHER_TOKENS
    runs["null-experts"] = EXPERTS
    runs["null-poisoned"] = ["alignment.alpha=0.0"]
    align = {"config": str(lab / "align.yaml"), "out": str(lab / "aligned"), "align": True, "poisoned": False}
    ranks = forks.run(SCRIPT, listed(lab, runs, [align | {"command": False}]), processes=2)
    assert [rank.code for rank in ranks] == [0, 0], ranks[0].stderr[-3000:] + ranks[1].stderr[-3000:]
    (lab / "printed").write_text("".join(rank.stdout + rank.stderr for rank in ranks))
    return lab


def listed(lab: Path, runs: dict[str, list[str]], more: Sequence[dict[str, Any]] = ()) -> Path:
    """The jobs of runs_in_two.py for runs with these settings; the name of a run begins with its sharding.

    `more`: other jobs, which run first.
    """
    jobs = [
        {
            "config": str(lab / "two.yaml"),
            "set": [f"training.sharding={name.partition('-')[0]}", *overrides],
            "out": str(lab / name),
            "command": name == "null",
            "poisoned": name.endswith("-poisoned"),
        }
        for name, overrides in runs.items()
    ]
    path = lab / f"{next(iter(runs))}.json"
    path.write_text(json.dumps([*more, *jobs]))
    return path


def torchrun(*command: str) -> str:
    """Two processes on CPU (gloo); what they printed."""
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([*start, *command], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


def lines(out: Path) -> list[dict[str, float]]:
    logged = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [line for line in logged if "train_runtime" not in line]


def same_losses(out: Path, other: Path, *, within: float = 1e-5, first: int | None = None) -> None:
    """`first`: only these many lines of the log."""
    ours, theirs = lines(out)[:first], lines(other)[:first]
    assert [line["step"] for line in ours] == [line["step"] for line in theirs]
    for line, expected in zip(ours, theirs, strict=True):
        losses = [key for key in expected if "loss" in key]
        assert len(losses) == 4
        for key in losses:
            assert line[key] == pytest.approx(expected[key], abs=within), (line["step"], key)


WITH_DEEPSPEED = pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="DeepSpeed is not installed")


@pytest.mark.parametrize(
    "sharding",
    ["null", "fsdp2", pytest.param("zero2", marks=WITH_DEEPSPEED), pytest.param("zero3", marks=WITH_DEEPSPEED)],
)
def test_two_processes_have_the_losses_of_one(request, lab, alone, sharding):
    out = lab / sharding
    if sharding in ("null", "fsdp2"):
        printed = (request.getfixturevalue("together") / "printed").read_text()
    else:
        options = ["--out", str(out), "--set", f"training.sharding={sharding}"]
        printed = torchrun("-m", "medalign", "student", "train", str(lab / "two.yaml"), *options)
    assert printed.count("step     1  loss") == 1, "one process alone reports"
    same_losses(out, alone)
    assert len(lines(out)) == STEPS + 2
    for file in FILES:
        together, expected = (load_file(folder / f"{file}.safetensors") for folder in (out, alone))
        assert together.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(together[name], value, atol=2e-5, rtol=0, msg=name)
    assert load_student(out).model.rotations[2].weight.abs().max() > 0


@pytest.mark.parametrize(
    ("name", "changes", "part"),
    [("teacher-tokens", TEACHER_TOKENS, "teacher_projection"), ("experts", EXPERTS, "query_experts")],
)
def test_two_processes_train_added_parts_as_one(together, lab, name, changes, part):
    """In the third step of an epoch one process has no image."""
    run_training(load_settings(lab / "one.yaml", changes), lab / f"{name}-alone", Silent())
    out, alone = lab / f"null-{name}", lab / f"{name}-alone"
    same_losses(out, alone)
    for file in ("adapter_model", part):
        values, expected = (load_file(folder / f"{file}.safetensors") for folder in (out, alone))
        assert values.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(values[name], value, atol=2e-5, rtol=0, msg=name)


def test_two_processes_align_as_one(together, lab):
    """Each step has two targets in one process and two anchors in the other."""
    run_align(load_align_settings(lab / "align.yaml", None, resume=False), lab / "aligned-alone", Silent())
    ours, theirs = lines(together / "aligned"), lines(lab / "aligned-alone")
    assert [line["step"] for line in ours] == [line["step"] for line in theirs] == list(range(1, 7))
    for line, expected in zip(ours, theirs, strict=True):
        for name in ("loss", "loss_translation", "loss_keep"):
            assert line[name] == pytest.approx(expected[name], abs=1e-5), (line["step"], name)
    values, expected = (load_file(lab / out / "adapter_model.safetensors") for out in ("aligned", "aligned-alone"))
    for name, value in expected.items():
        torch.testing.assert_close(values[name], value, atol=1e-5, rtol=0, msg=name)


def check_full_precision(out: Path, alone: Path, *, gap: float) -> None:
    """The student was given and the trainer took out float32, and so are the files, at most `gap` from `alone`'s."""
    seen = json.loads((out / "seen.json").read_text())
    assert seen == dict.fromkeys(("pixel_values", "E_v", "E_a", "loss_lm", "loss_vis", "loss_att"), "torch.float32")
    for file in FILES:
        values, expected = (load_file(folder / f"{file}.safetensors") for folder in (out, alone))
        checkpoint = load_file(out / f"checkpoint-{STEPS}" / f"{file}.safetensors")
        assert {str(value.dtype) for value in [*values.values(), *checkpoint.values()]} == {"torch.float32"}
        assert any((value.bfloat16() != value).any() for value in values.values()), "not rounded on the way"
        for name, value in values.items():
            torch.testing.assert_close(value, expected[name], atol=gap, rtol=0, msg=name)


@pytest.mark.parametrize("sharding", ["null", "fsdp2"])
def test_bfloat16_has_the_losses_of_one_process(together, alone_bf16, sharding):
    out = together / f"{sharding}-bfloat16"
    same_losses(out, alone_bf16, within=1e-3)
    check_full_precision(out, alone_bf16, gap=1e-3)


@WITH_DEEPSPEED
def test_zero_in_bfloat16_has_the_losses_of_one_process(lab, alone_bf16):
    """ZeRO-3 adds gradients up in another order, so that only the first step agrees beyond bfloat16's rounding."""
    torchrun(str(SCRIPT), str(listed(lab, {"zero2-bfloat16": IN_BF16, "zero3-bfloat16": IN_BF16})))
    same_losses(lab / "zero2-bfloat16", alone_bf16, within=1e-3)
    check_full_precision(lab / "zero2-bfloat16", alone_bf16, gap=1e-3)
    same_losses(lab / "zero3-bfloat16", alone_bf16, within=1e-3, first=1)
    check_full_precision(lab / "zero3-bfloat16", alone_bf16, gap=0.01)


def test_one_process_goes_on_with_a_checkpoint_of_two(together, lab, alone):
    """What FSDP2 saved is gathered: it does not depend on the number of processes."""
    out = lab / "fsdp2"
    (last,) = [path for path in out.glob("checkpoint-*") if path.name != "checkpoint-4"]
    for path in last.iterdir():
        path.unlink()
    last.rmdir()
    (out / "summary.json").unlink()  # what says that the run is finished
    settings = load_settings(lab / "two.yaml", ["training.per_device_train_batch_size=4"])
    (out / "config.yaml").write_text(settings.to_yaml())
    report = run_training(settings, out, Silent(), resume=True)
    assert report.result.steps == STEPS
    assert not report.was_finished
    same_losses(out, alone)


def test_all_processes_stop_where_one_is_not_finite(together):
    """A term without weight, so that nothing but the check carries it from one process to the other."""
    printed = (together / "printed").read_text()
    for rank in range(2):
        assert f"rank {rank}: step 2: loss_vis is NaN or infinite (learning rate " in printed
    assert not (together / "null-poisoned" / "medalign.json").exists()


def test_filling_says_nothing():
    sample = EncodedSample(input_ids=torch.tensor([5, 6]), labels=torch.tensor([-100, 6]), pixel_values=None)
    filled = FilledDataset([sample] * 5, multiple=4)
    assert len(filled) == 8
    assert filled.__getitems__([3, 4]) == [sample, sample]
    silent = filled[7]
    assert silent.pixel_values is None
    assert silent.labels.tolist() == [-100]


def test_sharding_without_torchrun_is_refused(lab):
    settings = load_settings(lab / "one.yaml", ["training.sharding=fsdp2"])
    with pytest.raises(
        SettingsError, match=r"there is only one process\. Start the run with `torchrun --nproc-per-node N"
    ):
        run_training(settings, lab / "never", Silent())


def test_zero_without_deepspeed_is_refused(monkeypatch, student_folder):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    with pytest.raises(SettingsError, match="DeepSpeed is not installed"):
        sharding_arguments(open_student(student_folder, layers=[2], rotation="none").model, "zero3")
