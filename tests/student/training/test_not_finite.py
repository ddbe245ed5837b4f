"""The first loss, gradient or weight that is NaN or infinite ends a run, and the last good checkpoint is kept."""

import json
from dataclasses import replace

import pytest
import torch
from medalign.errors import MedalignError
from medalign.progress import Silent
from medalign.student.adapters.adapter_folder import save_adapter
from medalign.student.adapters.trainable import LearningRates
from medalign.student.inputs.collation import EncodedSample, encode_sample
from medalign.student.training import student_trainer, trainer
from medalign.student.training.checkpoints import is_whole
from medalign.student.training.trainer import AlignmentTrainer
from medalign.student.training.training_options import TrainingOptions
from medalign.student.training.training_run import train_student
from safetensors.torch import load_file
from students import OPTIONS, adapter_record, mixed_samples, trainable
from torch.utils.data import Dataset

STORE = {"fingerprint": "f" * 64, "teacher": "t", "weights_sha256": "a" * 64, "data_use": "public"}
RECORDED = {"store": STORE, "settings": {"data": {"store": "lab/cxr.zarr"}}}


class Poisoned(Dataset):
    """Twelve samples, read in order; starting with reading number `first`, one field of each is `value`."""

    def __init__(self, student, folder, *, field: str = "E_a", value: float = float("nan"), first: int = 10**6):
        generator = torch.Generator().manual_seed(5)
        self.field, self.value, self.first, self.read = field, value, first, 0
        self.items = []
        for item in [item for item in mixed_samples(folder) if item.images] * 4:
            encoded = encode_sample(student, item, with_answer=True)
            targets = {
                "E_v": torch.randn(len(item.images), 9, 5, generator=generator),
                "E_a": torch.rand(len(item.images), 9, generator=generator),
            }
            fields = {name: getattr(encoded, name) for name in ("input_ids", "labels", "pixel_values")}
            self.items.append(EncodedSample(**fields, **targets))

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        item = self.items[index]
        self.read += 1
        if self.read - 1 < self.first:
            return item
        values = getattr(item, self.field).clone()
        values[0].view(-1)[0] = self.value
        return replace(item, **{self.field: values})


def strict(text: str) -> list[dict]:
    """Lines of JSON, read by a parser that refuses NaN and Infinity."""

    def refuse(name: str) -> float:
        raise AssertionError(f"{name} is not JSON")

    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def run(student, data, out, options: TrainingOptions = OPTIONS, validation=None):
    record = replace(adapter_record(student), **RECORDED)
    return train_student(student, record, options, data, validation, out, Silent())


def failed(student, data, out, options: TrainingOptions, validation=None) -> str:
    """Check that a run ends with an error, check the files that it leaves, and return the message."""
    with pytest.raises(MedalignError) as caught:
        run(student, data, out, options, validation)
    assert not (out / "medalign.json").exists()
    assert not (out / "adapter_model.safetensors").exists()
    assert not any("NaN" in path.read_text() for path in out.glob("checkpoint-*/trainer_state.json"))
    strict((out / "log.jsonl").read_text() if (out / "log.jsonl").exists() else "")
    for checkpoint in out.glob("checkpoint-*"):
        assert is_whole(checkpoint)
        for file in checkpoint.glob("*.safetensors"):
            assert all(torch.isfinite(value).all() for value in load_file(file).values())
    return str(caught.value)


ONE_BY_ONE = replace(
    OPTIONS, per_device_train_batch_size=1, gradient_accumulation_steps=2, max_steps=6, save_steps=2, warmup_ratio=0.5
)
"""Two readings in each step."""


@pytest.mark.parametrize(
    ("field", "value", "term"),
    [
        ("E_v", float("inf"), "loss_vis"),
        ("E_a", float("nan"), "loss_att"),
        ("pixel_values", float("nan"), "loss_lm and loss_vis and loss_att"),
    ],
)
def test_training_stops_at_the_first_step_whose_loss_is_not_finite(student_folder, tmp_path, field, value, term):
    """In the second batch of step 4, so that the sum over batches is checked."""
    student = trainable(student_folder)
    data = Poisoned(student, tmp_path / "images", field=field, value=value, first=7)
    message = failed(student, data, tmp_path / "out", ONE_BY_ONE)
    assert message.startswith(f"step 4: {term} ")
    assert "NaN or infinite (learning rate 0.01, precision float32)" in message
    assert f"the last good checkpoint is {tmp_path}/out/checkpoint-2." in message
    assert "`medalign store verify lab/cxr.zarr`" in message
    assert "a lower training.learning_rate" in message
    assert [line["step"] for line in strict((tmp_path / "out" / "log.jsonl").read_text())] == [1, 2, 3]


def test_a_zero_weight_term_is_checked(student_folder, tmp_path):
    """It is in the log, and damaged targets are reported regardless of the weight."""
    student = trainable(student_folder)
    data = Poisoned(student, tmp_path / "images", field="E_v", first=2)
    message = failed(student, data, tmp_path / "out", replace(ONE_BY_ONE, alpha=0.0))
    assert message.startswith("step 2: loss_vis is NaN")


@pytest.mark.parametrize(("norm", "value"), [(1.0, float("inf")), (None, float("nan"))])
def test_training_stops_if_only_the_gradient_is_not_finite(student_folder, tmp_path, norm, value):
    student = trainable(student_folder)
    (rotation,) = student.model.rotations.values()
    calls = []

    def spoil(gradient):
        calls.append(1)
        return gradient.clone().fill_(value) if len(calls) == 3 else gradient

    rotation.weight.register_hook(spoil)
    options = replace(OPTIONS, max_grad_norm=norm, max_steps=6)
    message = failed(student, Poisoned(student, tmp_path / "images"), tmp_path / "out", options)
    assert message.startswith("step 3: the gradient norm is NaN or infinite")
    assert sorted(path.name for path in (tmp_path / "out").glob("checkpoint-*")) == ["checkpoint-1", "checkpoint-2"]


def test_a_bad_step_between_two_log_lines_is_reported_at_the_next(student_folder, tmp_path):
    """Losses stay on the device until they are logged; then the first bad step is reported, not the last."""
    student = trainable(student_folder)
    data = Poisoned(student, tmp_path / "images", field="E_v", value=float("inf"), first=7)
    message = failed(student, data, tmp_path / "out", replace(ONE_BY_ONE, logging_steps=100, save_steps=100))
    assert message.startswith("step 4: loss_vis is NaN or infinite (learning rate 0.01,")
    assert not list((tmp_path / "out").glob("checkpoint-*"))


def test_bad_steps_are_reported_without_a_log_line(student_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(student_trainer, "UNCHECKED_STEPS", 2)
    student = trainable(student_folder)
    data = Poisoned(student, tmp_path / "images", first=4)
    message = failed(student, data, tmp_path / "out", replace(ONE_BY_ONE, logging_steps=100, save_steps=100))
    assert message.startswith("step 3: loss_att is NaN")
    assert data.read < 12, "step 6 is not trained"


def test_the_message_says_if_there_is_no_checkpoint(student_folder, tmp_path):
    student = trainable(student_folder)
    data = Poisoned(student, tmp_path / "images", first=0)
    message = failed(student, data, tmp_path / "out", replace(ONE_BY_ONE, precision="bfloat16"))
    assert "step 1: loss_att is NaN" in message
    assert "there is no checkpoint yet" in message
    assert "student.dtype float32" in message


def test_a_non_finite_evaluation_ends_the_run(student_folder, tmp_path):
    student = trainable(student_folder)
    bad = Poisoned(student, tmp_path / "b", field="E_v", first=12)  # the second evaluation
    options = replace(OPTIONS, max_steps=6, eval_steps=2, patience=4, save_steps=100)
    message = failed(student, Poisoned(student, tmp_path / "a"), tmp_path / "out", options, bad)
    assert message.startswith("the evaluation after step 4: eval_loss_vis is NaN or infinite")
    assert "checkpoint-2" in message


def test_weights_that_overflow_are_not_saved(student_folder, tmp_path, monkeypatch):
    """A finite gradient but an infinite weight after it, in the step that is saved."""
    student = trainable(student_folder)
    (rotation,) = student.model.rotations.values()
    step = torch.optim.AdamW.step
    calls = []

    def overflow(self, closure=None):
        step(self, closure)
        calls.append(1)
        if len(calls) == 2:
            with torch.no_grad():
                rotation.weight[0, 0] = float("inf")

    monkeypatch.setattr(torch.optim.AdamW, "step", overflow)
    options = replace(OPTIONS, max_steps=4, save_steps=1)
    message = failed(student, Poisoned(student, tmp_path / "images"), tmp_path / "out", options)
    assert "1 of 4096 values in aligned.0.rotation.weight are NaN or infinite" in message
    assert f"no adapter was written to {tmp_path}/out/checkpoint-2" in message
    assert [path.name for path in (tmp_path / "out").glob("checkpoint-*")] == ["checkpoint-1"]


def test_a_non_finite_adapter_is_not_written(student_folder, tmp_path):
    student = trainable(student_folder)
    with torch.no_grad():
        for name, parameter in student.model.named_parameters():
            if "lora_B" in name:
                parameter[0] = float("nan")
    with pytest.raises(MedalignError, match=r"values in llava\..*lora_B.* and values in \d+ other tensors are NaN"):
        save_adapter(student.model, adapter_record(student), tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()


@pytest.fixture
def half(monkeypatch):
    """accelerate's float16 with loss scaling on the CPU, which it does not support; the initial scale can be set."""

    def install(scale: float) -> None:
        prepare = AlignmentTrainer.create_accelerator_and_postprocess

        def with_scaler(self):
            prepare(self)
            monkeypatch.setitem(self.accelerator.state.__dict__, "_mixed_precision", "fp16")
            self.accelerator.native_amp = True
            self.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale)

        monkeypatch.setattr(AlignmentTrainer, "create_accelerator_and_postprocess", with_scaler)
        monkeypatch.setitem(trainer.AUTOCAST, "float32", torch.float16)  # of the options that these runs have

    return install


SLOW = replace(
    OPTIONS,
    per_device_train_batch_size=1,
    max_steps=10,
    save_steps=100,
    logging_steps=2,
    learning_rates=LearningRates(language_model=1e-3, projector=1e-3, vision_tower=1e-3, rotation=1e-3),
)


def test_float16_skips_steps_whose_scaled_gradient_overflows(student_folder, tmp_path, half):
    """The largest float16 value is 65504: with an initial scale of 2^24, some steps are skipped; training continues."""
    half(2.0**24)
    student = trainable(student_folder)
    result = run(student, Poisoned(student, tmp_path / "images"), tmp_path / "out", SLOW)
    assert result.steps == 10
    lines = [line for line in strict((tmp_path / "out" / "log.jsonl").read_text()) if "loss" in line]
    skipped = [line.get("skipped_steps", 0) for line in lines]
    assert skipped[0] == 2
    assert skipped[-1] == 0
    assert "grad_norm" not in lines[0]
    assert lines[-1]["grad_norm"] > 0
    assert load_file(tmp_path / "out" / "rotation.safetensors")["layers.2"].abs().max() > 0


def test_float16_steps_are_not_skipped_forever(student_folder, tmp_path, half, monkeypatch):
    half(2.0**10)
    monkeypatch.setattr(student_trainer, "MAX_SKIPPED_STEPS", 2)
    student = trainable(student_folder)
    (rotation,) = student.model.rotations.values()
    rotation.weight.register_hook(lambda gradient: torch.full_like(gradient, float("inf")))
    message = failed(student, Poisoned(student, tmp_path / "images"), tmp_path / "out", SLOW)
    assert message.startswith("step 3: the gradient norm of 3 steps in a row is NaN or infinite")


def test_the_scale_is_below_one_before_skipping_ends_a_run():
    assert torch.amp.GradScaler("cpu").get_scale() * 0.5**student_trainer.MAX_SKIPPED_STEPS < 1
