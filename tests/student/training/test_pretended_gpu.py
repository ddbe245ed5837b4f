"""Full-width 7B students and teachers on a simulated GPU: devices, waits of the host, and memory.

Each check runs at the published width, in bfloat16 unless stated otherwise, with few layers. `make test` runs the
checks that a seed draws; MEDALIGN_PRETENDED_GPU=all (`make test-gpu`) runs all of them, at full depth where memory is
held against the plan.
"""

import os
import random
import re
from pathlib import Path

import pytest
import yaml
from medalign.student.decoding import decodings
from pretended.runtime import build, missing, run_checks

WHOLE = os.environ.get("MEDALIGN_PRETENDED_GPU") == "all"
SEED = 12
SHALLOW = "depth=2:layers=1"
CONFIGS = Path(__file__).parents[3] / "configs"
PAPER = ["iu-xray-huatuo", "iu-xray-llava-med", "slake-huatuo", "vqa-rad-llava-med"]
STUDENTS = ["llava-med", "huatuo"]
TRAIN = [
    "train:llava-med",
    "train:huatuo",
    "train:llava-med:checkpointing=non_reentrant",
    "train:llava-med:checkpointing=reentrant",
    "train:huatuo:rotation=train_only",
    "train:huatuo:rotation=none",
    "train:llava-med:images=0",
    "train:huatuo:images=0:rotation=none",
    "train:llava-med:tower=full:projector=full:checkpointing=non_reentrant",
    "train:huatuo:tower=lora",
    "train:llava-med:gram=1",
    "train:llava-med:dtype=float16",
    "train:llava-med:images=2:length=1300",
]
DECODE = [f"decode:{student}:{method}" for student in STUDENTS for method in decodings()]
GROUND = [f"ground:{student}" for student in STUDENTS]
TEACHERS = [
    f"teacher:{name}:{dtype}"
    for name in ("unimed-l14-336", "unimed-b16-224", "biomedclip-b16-224")
    for dtype in ("bfloat16", "float16", "float32")
]
FAULTS = {fault: f"train:llava-med:{SHALLOW}:fault={fault}" for fault in ("device", "item")}

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))


def paper_check(config: str) -> str:
    """A training step of a shipped config; reports are long, VQA answers are short."""
    values = yaml.safe_load((CONFIGS / f"{config}.yaml").read_text())
    student, training = values["student"]["path"], values["training"]
    name = "huatuo" if "huatuo" in student else "llava-med"
    length, answer = (1024, 120) if "iu-xray" in config else (700, 12)
    depth = f"layers={values['alignment']['layer']}" if WHOLE else "depth=2:layers=0"
    checkpointing = f"checkpointing={training['gradient_checkpointing']}"
    sizes = (
        f"samples={training['per_device_train_batch_size']}:rank={values['lora']['r']}:length={length}:answer={answer}"
    )
    return f"train:{name}:{depth}:{checkpointing}:{sizes}"


def drawn(checks: list[str], number: int) -> list[str]:
    """All checks, or a random selection with this seed."""
    return checks if WHOLE else random.Random(SEED).sample(checks, number)


STEPS = [f"{check}:{SHALLOW}" for check in drawn(TRAIN, 1)]
ANSWERS, MAPS, TOWERS = drawn(DECODE, 1), drawn(GROUND, 1), drawn(TEACHERS, 1)
LONG = [f"train:{student}:layers=20:checkpointing=non_reentrant:samples=8:answer=380" for student in STUDENTS]
PLANNED = [*(paper_check(config) for config in drawn(PAPER, 1)), *(LONG if WHOLE else ())]
TRAINERS = [f"trainer:{student}" for student in drawn(STUDENTS, 1)]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Results of all checks, from one process with the simulated runtime."""
    checks = [*STEPS, *ANSWERS, *MAPS, *TOWERS, *PLANNED, *TRAINERS, *FAULTS.values()]
    return run_checks(build(tmp_path_factory.mktemp("cuda")), checks)


def result(found, check: str) -> dict:
    """A check's results, after asserting that everything is on the GPU."""
    assert "error" not in found[check], found[check]["traceback"]
    return found[check]


@pytest.mark.parametrize("check", STEPS)
def test_a_training_step_stays_on_the_gpu_without_waits(found, check):
    counted = result(found, check)
    assert counted["our_waits"] == {}
    assert 0.8 < counted["peak"] / counted["estimate"] < 1.25


@pytest.mark.parametrize("check", PLANNED)
def test_the_peak_of_a_step_is_close_to_the_plan(found, check):
    counted = result(found, check)
    assert counted["peak"] == pytest.approx(counted["estimate"], rel=0.05)
    assert counted["our_waits"] == {}


@pytest.mark.parametrize("check", TRAINERS)
def test_the_trainer_does_not_wait_between_two_log_lines(found, check):
    counted = result(found, check)
    assert counted["steps"] == 2
    assert counted["our_waits"] == {}


@pytest.mark.parametrize("check", ANSWERS)
def test_the_host_waits_once_for_each_token(found, check):
    """In each decoding method, with padded prompts, including waits in other libraries."""
    counted = result(found, check)
    assert counted["tokens"] >= 4
    assert counted["waits_per_token"] <= 1


@pytest.mark.parametrize("check", MAPS)
def test_grounding_does_not_wait(found, check):
    assert result(found, check)["our_waits"] == {}


@pytest.mark.parametrize("check", TOWERS)
def test_a_teacher_stays_on_the_gpu(found, check):
    result(found, check)


def test_a_tensor_created_without_a_device_is_detected(found):
    assert re.search("FakeTensorDeviceMismatchError|two different devices", found[FAULTS["device"]]["error"])


def test_a_value_read_in_a_step_is_detected(found):
    (wait,) = result(found, FAULTS["item"])["our_waits"]
    assert wait.startswith("read of a scalar at pretended/checks.py:")
