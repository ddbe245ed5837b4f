"""Sharding a student over processes with FSDP2, or with DeepSpeed if it is installed."""

import importlib.util
from typing import Any

from ...choices import Sharding
from ...errors import SettingsError
from ..alignment.aligned_student import AlignedStudent
from ..processes import Processes


def sharding_arguments(model: AlignedStudent, sharding: Sharding | None) -> dict[str, Any]:
    """Sharding options for transformers' TrainingArguments; empty for DDP or a single process.

    Raises:
        SettingsError: there is only one process, or DeepSpeed is not installed.
    """
    if sharding is None:
        return {}
    if Processes.of_environment().number == 1:
        raise SettingsError(
            f"training.sharding is {sharding!r}, but there is only one process. Start the run with "
            "`torchrun --nproc-per-node N -m medalign student train CONFIG --out DIR`"
        )
    if sharding == "fsdp2":
        layer = type(model.llava.get_decoder().layers[0]).__name__
        return {
            "fsdp": True,
            "fsdp_config": {"version": 2, "transformer_layer_cls_to_wrap": [layer], "reshard_after_forward": True},
        }
    if importlib.util.find_spec("deepspeed") is None:
        raise SettingsError(
            f"training.sharding is {sharding!r}, but DeepSpeed is not installed. Run `pip install deepspeed`, or use "
            "fsdp2"
        )
    return {"deepspeed": _zero(stage=2 if sharding == "zero2" else 3)}


def _zero(stage: int) -> dict[str, Any]:
    """DeepSpeed's settings; transformers replaces "auto" with the run's settings."""
    return {
        "zero_optimization": {"stage": stage, "overlap_comm": True, "contiguous_gradients": True},
        "bf16": {"enabled": False},  # it would keep and save trained values in bfloat16; see precision.py
        "fp16": {"enabled": "auto"},
        "gradient_clipping": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "train_batch_size": "auto",
    }
