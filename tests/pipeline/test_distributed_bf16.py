"""Two processes in bfloat16 have the losses of one, are given what the store holds, and save float32 values."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate.state import AcceleratorState
from accelerate.utils import FullyShardedDataParallelPlugin
from labs import lab_settings, make_lab, write_config
from medalign.pipeline.settings import load_settings
from medalign.pipeline.training import run_training
from medalign.progress import Silent
from medalign.student.aligned import AlignedStudent
from medalign.student.compat.accelerate import keep_precisions
from safetensors.torch import load_file

SCRIPT = Path(__file__).parents[1] / "runs_in_two.py"
STEPS = 4
LINES = STEPS + 2
"""Of a log: one a step, and two evaluations."""
FILES = ("adapter_model", "rotation", "projector")


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Path:
    folder = make_lab(tmp_path_factory.mktemp("lab"))
    settings = lab_settings(folder, batch_size=2, max_steps=STEPS, evaluation_steps=2, save_steps=STEPS)
    settings["student"]["dtype"] = "bfloat16"
    settings["lora"]["dropout"] = 0.0
    settings["data"]["validation_split"] = "validation"
    settings["trainable"] = {"projector": "full"}
    write_config(folder / "two.yaml", settings)
    return folder


@pytest.fixture(scope="module")
def alone(lab) -> Path:
    """One process with the same batches: bfloat16 rounds otherwise in batches that are cut in another way."""
    run_training(load_settings(lab / "two.yaml", ["training.accumulation_steps=4"]), lab / "alone", Silent())
    return lab / "alone"


def run_in_two(lab: Path, shardings: list[str]) -> dict[str, Path]:
    """Train with each sharding in two processes on the CPU (gloo)."""
    outs = {sharding: lab / sharding for sharding in shardings}
    jobs = [
        {"config": str(lab / "two.yaml"), "set": [f"training.sharding={sharding}"], "out": str(out)}
        for sharding, out in outs.items()
    ]
    listed = lab / f"{'-'.join(shardings)}.json"
    listed.write_text(json.dumps(jobs))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([*command, str(SCRIPT), str(listed)], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return outs


def losses(out: Path) -> list[dict[str, float]]:
    logged = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [
        {key: value for key, value in line.items() if "loss" in key or key == "step"}
        for line in logged
        if "train_runtime" not in line
    ]


def check_like_one(out: Path, alone: Path, *, lines: int) -> None:
    """`lines` of the log are as those of one process; everything else holds for all of them."""
    ours, theirs = losses(out), losses(alone)
    assert [line["step"] for line in ours] == [1, 2, 2, 3, 4, 4]
    for line, expected in zip(ours[:lines], theirs[:lines], strict=True):
        assert line == pytest.approx(expected, abs=1e-3)
    seen = json.loads((out / "seen.json").read_text())
    assert seen == dict.fromkeys(("pixel_values", "E_v", "E_a", "loss_lm", "loss_vis", "loss_att"), "torch.float32")
    for folder in (out, out / f"checkpoint-{STEPS}"):
        for file in FILES:
            values = load_file(folder / f"{file}.safetensors")
            assert {str(value.dtype) for value in values.values()} == {"torch.float32"}
    for file in FILES:  # not rounded to bfloat16 on the way: some bits below its 8 are set
        values = load_file(out / f"{file}.safetensors")
        assert any((value.bfloat16().float() != value).any() for value in values.values()), file
        expected = load_file(alone / f"{file}.safetensors")
        for name, value in values.items():
            assert (value - expected[name]).abs().max() < (1e-3 if lines == LINES else 0.1), name


@pytest.fixture(scope="module")
def together(lab) -> dict[str, Path]:
    return run_in_two(lab, ["null", "fsdp2"])


@pytest.mark.parametrize("sharding", ["null", "fsdp2"])
def test_two_processes_have_the_losses_of_one(together, alone, sharding):
    check_like_one(together[sharding], alone, lines=LINES)


@pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="DeepSpeed is not installed")
def test_zero_has_the_losses_of_one_process(lab, alone):
    """ZeRO-3 adds gradients up in another order, so that only the first step agrees beyond bfloat16's rounding."""
    outs = run_in_two(lab, ["zero2", "zero3"])
    check_like_one(outs["zero2"], alone, lines=LINES)
    check_like_one(outs["zero3"], alone, lines=1)


class Ended(Exception):
    """The student was called."""


@pytest.mark.parametrize(("precision", "expected"), [("float32", None), ("bfloat16", torch.bfloat16)])
def test_precision_is_that_of_the_settings_whatever_the_launcher_says(lab, tmp_path, monkeypatch, precision, expected):
    """`accelerate launch --mixed_precision` and its configuration file set this variable."""
    given = []

    def forward(self, **kwargs):
        given.append((kwargs["autocast"], torch.is_autocast_enabled("cpu")))
        raise Ended

    monkeypatch.setattr(AlignedStudent, "forward", forward)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16" if precision == "float32" else "no")
    AcceleratorState._reset_state(True)
    with pytest.raises(Ended):
        run_training(load_settings(lab / "two.yaml", [f"student.dtype={precision}"]), tmp_path / "run", Silent())
    AcceleratorState._reset_state(True)
    assert given == [(expected, False)]


def test_fsdp2_casts_nothing_whatever_accelerate_has_set():
    plugin = FullyShardedDataParallelPlugin(fsdp_version=2)
    plugin.set_mixed_precision("fp16")
    assert plugin.mixed_precision_policy.output_dtype == torch.float16, "what casts inputs, gradients and losses"
    keep_precisions(SimpleNamespace(fsdp_plugin=plugin))
    policy = plugin.mixed_precision_policy
    assert (policy.param_dtype, policy.output_dtype, policy.cast_forward_inputs) == (None, None, False)
    assert policy.reduce_dtype == torch.float32
