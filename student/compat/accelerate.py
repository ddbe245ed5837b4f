"""accelerate's private and young API, as medalign uses it; tried with accelerate 1.0 to 1.15."""

from typing import Any

import torch
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch.distributed.fsdp import MixedPrecisionPolicy


def keep_fsdp_on_cpu(state: Any, arguments: dict[str, Any]) -> None:
    """Turn on FSDP where there is no accelerator, so that it can be tried there: accelerate leaves it out."""
    state.fsdp_plugin = FullyShardedDataParallelPlugin(**arguments)
    state.distributed_type = DistributedType.FSDP


def keep_precisions(state: Any) -> None:
    """Have FSDP2 cast nothing: parameters are gathered as they are, inputs and outputs stay as they are.

    accelerate's own policy for half precision casts the teacher's targets, the gradients that processes add up, and
    the losses. Only float32 parameters have gradients, and these are added up in float32.
    """
    state.fsdp_plugin.mixed_precision_policy = MixedPrecisionPolicy(
        reduce_dtype=torch.float32, cast_forward_inputs=False
    )
