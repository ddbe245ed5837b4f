"""Learning rates: linear warmup and cosine decay, compared with torch at every step."""

import json
from dataclasses import replace

import pytest
import torch
from medalign.errors import InputError
from medalign.progress import Silent
from medalign.student.adapters.trainable import LearningRates
from medalign.student.inputs.alignment_dataset import AlignmentDataset
from medalign.student.training.schedule import make_scheduler, warmup_steps
from medalign.student.training.training_run import train_student
from students import LAYER, OPTIONS, adapter_record, mixed_samples, trainable
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR

RATES = LearningRates(language_model=1e-2, projector=1e-2, vision_tower=1e-2, rotation=1e-3)


def optimizer(rate: float) -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)


def by_torch(steps: int, warmup: int, rate: float) -> list[float]:
    """torch's linear warmup from 1/warmup to 1, then its cosine annealing over the remaining steps."""
    rates = []
    for length, make in (
        (warmup, lambda sgd: LinearLR(sgd, start_factor=1 / max(1, warmup), total_iters=max(1, warmup - 1))),
        (steps - warmup, lambda sgd: CosineAnnealingLR(sgd, T_max=max(1, steps - warmup))),
    ):
        sgd = optimizer(rate)
        scheduler = make(sgd)
        for _ in range(length):
            rates.append(sgd.param_groups[0]["lr"])
            sgd.step()
            scheduler.step()
    return rates


@pytest.mark.parametrize(
    ("steps", "ratio", "warmup"),
    [(1, 0.03, 1), (1, 0.0, 0), (2, 0.5, 1), (7, 0.0, 0), (10, 0.3, 3), (33, 0.03, 1), (100, 0.03, 3), (5, 0.99, 5)],
)
def test_learning_rates_equal_torchs_schedulers(steps, ratio, warmup):
    assert warmup_steps(steps, ratio) == warmup
    sgd = optimizer(0.2)
    scheduler = make_scheduler(sgd, steps=steps, ratio=ratio)
    rates = []
    for _ in range(steps):
        rates.append(sgd.param_groups[0]["lr"])
        sgd.step()
        scheduler.step()
    assert rates == pytest.approx(by_torch(steps, warmup, 0.2), rel=1e-9)
    assert min(rates) > 0, "no step trains nothing"
    if steps > warmup:
        assert sgd.param_groups[0]["lr"] == pytest.approx(0, abs=1e-12), "behind the last step"


class Killed(Silent):
    """Ends a run silently in its third step."""

    steps = 0

    def advance(self, steps=1):
        self.steps += steps
        if self.steps == 3:
            raise EOFError


def run(student_folder, images, out, *, progress=None, resume=False, **changes):
    student = trainable(student_folder)
    data = AlignmentDataset(student, mixed_samples(images), None, max_length=800)
    options = replace(OPTIONS, **{"learning_rates": RATES, "save_steps": 100, **changes})
    train_student(student, adapter_record(student), options, data, None, out, progress or Silent(), resume=resume)
    return student


def test_a_run_logs_the_learning_rate_of_each_step(student_folder, tmp_path):
    run(
        student_folder,
        tmp_path / "images",
        tmp_path / "out",
        max_steps=10,
        warmup_ratio=0.3,
        per_device_train_batch_size=1,
    )
    lines = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    rates = [line["learning_rate"] for line in lines if "learning_rate" in line]
    assert rates == pytest.approx(by_torch(10, 3, 1e-2), rel=1e-9)


def test_one_step_with_warmup_trains(student_folder, tmp_path):
    """The size of AdamW's first step is about its learning rate, for any gradient."""
    student = run(student_folder, tmp_path / "images", tmp_path / "out", max_steps=1, warmup_ratio=0.03)
    assert student.model.rotations[LAYER].weight.abs().max().item() == pytest.approx(1e-3, rel=0.01)


def test_a_checkpoint_of_another_schedule_is_refused(student_folder, tmp_path):
    """Earlier versions started warmup at 0: the third of four steps had 2/4 of the rate instead of 3/4."""
    out = tmp_path / "out"
    options = {"max_steps": 8, "warmup_ratio": 0.5, "per_device_train_batch_size": 1, "save_steps": 1}
    with pytest.raises(EOFError):
        run(student_folder, tmp_path / "images", out, progress=Killed(), **options)
    saved = out / "checkpoint-2" / "scheduler.pt"
    state = torch.load(saved, weights_only=True)
    assert set(state["_last_lr"]) == {1e-2 * 3 / 4, 1e-3 * 3 / 4}
    state["_last_lr"] = [rate * 2 / 3 for rate in state["_last_lr"]]
    torch.save(state, saved)
    message = (
        r"a different learning-rate schedule: at step 3 its learning rate is 0\.005, but this schedule's is 0\.0075"
    )
    with pytest.raises(InputError, match=rf"checkpoint-2 was written with {message}"):
        run(student_folder, tmp_path / "images", out, resume=True, **options)
