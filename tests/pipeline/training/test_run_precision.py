"""A run computes in the precision of its settings, whatever accelerate would do of its own."""

from types import SimpleNamespace

import pytest
import torch
from accelerate.state import AcceleratorState
from accelerate.utils import FullyShardedDataParallelPlugin
from labs import lab_settings, make_lab
from medalign.pipeline.training.settings import Settings
from medalign.pipeline.training.train import run_training
from medalign.progress import Silent
from medalign.student.alignment.aligned_student import AlignedStudent
from medalign.student.compat.accelerate import keep_precisions


class Ended(Exception):
    """The student was called."""


@pytest.mark.parametrize(("precision", "expected"), [("float32", None), ("bfloat16", torch.bfloat16)])
def test_precision_is_that_of_the_settings_whatever_the_launcher_says(tmp_path, monkeypatch, precision, expected):
    """`accelerate launch --mixed_precision` and its configuration file set this variable."""
    given = []

    def forward(self, **kwargs):
        given.append((kwargs["autocast"], torch.is_autocast_enabled("cpu")))
        raise Ended

    settings = lab_settings(make_lab(tmp_path / "lab"))
    settings["student"]["dtype"] = precision
    monkeypatch.setattr(AlignedStudent, "forward", forward)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16" if precision == "float32" else "no")
    AcceleratorState._reset_state(True)
    with pytest.raises(Ended):
        run_training(Settings.model_validate(settings), tmp_path / "run", Silent())
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
